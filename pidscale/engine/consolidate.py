"""From ZeRO pieces to a consolidated generator. Knows the card's contents; the artifact owns its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pidscale.diffusion.noise import Noise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.engine.disk import in_one_line
from pidscale.generator import artifact
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde


def card(
    kind: str,
    pde: Pde,
    grid: Grid,
    normaliser: Normaliser,
    noise: Noise,
    architecture: Mapping[str, Any],
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    constraints: Sequence[str] = (),
    told: float | None = None,
) -> dict[str, Any]:
    """The card of a `teacher` or a `student`: all that is needed to use its weights, as plain JSON values.

    told: the noise level that a student's network is told, where it is not that of its noise.
    """
    return {
        "kind": kind,
        "equation": {"name": pde.name, "params": pde.params_dict()},
        "grid": grid.describe(),
        "channels": [{"name": c.name, "unit": c.unit, "role": c.role} for c in pde.channels],
        "normaliser": {"mean": list(normaliser.mean), "std": list(normaliser.std)},
        "architecture": dict(architecture),
        "noise": noise.describe(),
        "sigma_max": noise.sigma_max,
        "constraints": list(constraints),
        "told": told,
        "provenance": dict(provenance),
        "metrics": dict(metrics),
    }


def publish(folder: Path, weights: Mapping[str, Tensor], contents: Mapping[str, Any]) -> None:
    """Write the generator's folder. Called by the first rank alone, with whole weights.

    UserError where the disk has no room, or where a weight or a number of the card is not finite.
    """
    size, after = sum(one.nbytes for one in weights.values()), "the same command goes on from the last checkpoint"
    with in_one_line(folder, "the finished weights", size, after):
        artifact.write(folder, weights, contents)
