"""Writes small students and teachers with random weights, for tests that load one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pidscale.diffusion.noise import EdmNoise, Noise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.engine.consolidate import publish
from pidscale.generator.artifact import read_card
from pidscale.generator.card import Card, Metrics, Provenance
from pidscale.models import architecture, build_denoiser
from pidscale.pde import build_pde

POINTS = 16
CHANGES = {
    "unet": {"width": 8, "multipliers": [1, 2], "embedding": 16},
    "fno": {"width": 8, "modes": 4, "layers": 2, "embedding": 16},
}


def write_generator(
    folder: Path,
    kind: str = "student",
    network: str = "unet",
    normaliser: Normaliser | None = None,
    seed: int = 0,
    equation: str = "darcy",
    teacher: Path | None = None,
    noise: Noise | None = None,
    head: int = 0,
) -> Path:
    """Write a consolidated generator on 16 x 16 points and return its folder. teacher: folder of a student's teacher."""
    pde = build_pde(equation)
    channels = len(pde.channels)
    described: dict[str, Any] = architecture(network, "tiny", channels, len(pde.varying), **CHANGES[network])
    torch.manual_seed(seed)
    model = build_denoiser(described)
    with torch.no_grad():
        model.network.last.weight.normal_(std=0.1)
    plain = Normaliser((0.0,) * channels, (1.0,) * channels)
    units = normaliser or (Normaliser((7.5, 0.005), (4.5, 0.004)) if equation == "darcy" else plain)
    card = Card.of(
        kind,
        pde,
        grid=pde.grid(POINTS),
        normaliser=units,
        architecture=described,
        noise=EdmNoise() if noise is None else noise,
        head=head,
        provenance=Provenance(teacher=read_card(teacher).weights_sha256 if teacher else None, further={"run": "made"}),
        metrics=Metrics(1.5),
    )
    publish(folder, model.state_dict(), card)
    return folder
