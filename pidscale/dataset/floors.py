"""Residuals of stored truths: the floor, below which residuals no longer distinguish generated fields from truths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, residual_squares


def truth_residuals(pde: Pde, grid: Grid, fields: np.ndarray, params: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the relative residuals of stored fields.

    Args:
        pde: The equation.
        grid: The grid of the fields.
        fields: Fields [B, C, Y, X] in physical units; their dtype is that of the computation.
        params: The varying parameters [B, P].

    Returns:
        For each norm the residual of each sample, float64 [B], relative to the scale of the equation.
    """
    with torch.no_grad():
        squares = residual_squares(pde, grid, torch.from_numpy(fields), torch.from_numpy(params))
    return {name: np.sqrt(square.double().numpy()) for name, square in sorted(squares.items())}


def floor_of(residuals: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the root mean square over samples of each norm and, as "max_" + norm, the largest residual."""
    floor: dict[str, float] = {}
    for name, each in residuals.items():
        values = np.array(each)
        floor |= {name: float(np.sqrt(np.mean(values**2))), f"max_{name}": float(values.max())}
    return floor
