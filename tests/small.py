"""A problem small enough to train on in seconds: real shards of Darcy flow on 16 points a side, and settings around them.

Shared by the tests of the engine and of both loops. Knows no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pidscale.config import Settings, from_plain
from pidscale.diffusion.noise import Noise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.card import Card
from pidscale.generator.generator import Teacher
from pidscale.limits import check
from pidscale.make.make import make_shard_set
from pidscale.ops.grid import Grid
from pidscale.pde import build_pde
from pidscale.pde.base import Pde

POINTS = 16
MODELS: dict[str, dict[str, Any]] = {
    "unet": {"kind": "unet", "change": {"width": 8, "multipliers": [1, 2], "embedding": 16}},
    "fno": {"kind": "fno", "change": {"width": 8, "modes": 4, "layers": 2, "embedding": 16}},
}


HEAT: dict[str, Any] = {"name": "heat", "params": {"frames": 4}}  # an equation with a parameter of each sample


def make_shards(root: Path, points: int = POINTS, variant: str = "two_phase") -> Path:
    """A set of 48 + 16 samples of Darcy flow at root."""
    return make_set(root, build_pde("darcy", {"variant": variant}), points)


def make_set(root: Path, pde: Pde, points: int = POINTS) -> Path:
    """A set of 48 + 16 samples of any equation at root."""
    make_shard_set(
        pde, root, {"train": 48, "test": 16}, grid=pde.grid(points), seed=3, samples_per_shard=16, parallel=False
    )
    return root


def pde_section(shards: Path) -> dict[str, Any]:
    """The equation that a set of `make_shards`, or one of HEAT whose folder's name says so, is of."""
    return {"points": POINTS} | (HEAT if shards.name.startswith("heat") else {})


def settings(shards: Path, folder: Path, model: str = "unet", **sections: Mapping[str, Any]) -> Settings:
    """Settings of a run of seconds; each section's values replace those here."""
    plain: dict[str, dict[str, Any]] = {
        "pde": pde_section(shards),
        "data": {"path": str(shards)},
        "model": MODELS[model],
        "teacher": {
            "steps": 20,
            "global_batch": 7,
            "micro_batch": 2,
            "lr": 2e-3,
            "warmup": 5,
            "clip": 1.0,
            "log_every": 2,
            "checkpoint_every": 4,
            "evaluate_every": 1000,
            "evaluate_samples": 4,
            "evaluate_steps": 3,
        },
        "distill": {
            "steps": 12,
            "objective": {"name": "piddm", "power": 0.0},
            "global_batch": 8,
            "micro_batch": 2,
            "chunk": 2,
            "lr": 1e-3,
            "warmup": 2,
            "log_every": 2,
            "checkpoint_every": 4,
            "solver": "heun",
            "solver_steps": 3,
            "scale_steps": 3,
            "scale_samples": 8,
            "buffer_rows": 3,
            "reuse": 2,
            "physics_from": 0.0,
            "gradient_to": "all",
        },
        "evaluate": {"samples": 8, "batch": 8, "teacher_steps": [3]},
        "run": {"folder": str(folder), "name": "run"},
    }
    for section, values in sections.items():
        plain[section] = plain.get(section, {}) | dict(values)
    made = from_plain(Settings, plain)
    check(made)
    return made


def bare_teacher(
    denoiser: Any, pde: Pde, grid: Grid, units: Normaliser, noise: Noise, architecture: dict[str, Any] | None = None
) -> Teacher:
    """A teacher in memory around any denoiser."""
    parts: dict[str, Any] = {"grid": grid, "normaliser": units, "noise": noise}
    card = Card.of("teacher", pde, architecture=architecture or {}, **parts)
    return Teacher(card, denoiser, pde, device=torch.device("cpu"), **parts)
