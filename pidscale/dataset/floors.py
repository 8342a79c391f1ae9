"""Residuals of stored truths: the floor below which no generated field can be told from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, residual_squares


def truth_residuals(pde: Pde, grid: Grid, fields: np.ndarray, params: np.ndarray) -> dict[str, np.ndarray]:
    """Relative residuals per sample, float64 [B] each, of fields float32 [B, C, Y, X]: the floor of any residual."""
    with torch.no_grad():
        squares = residual_squares(pde, grid, torch.from_numpy(fields), torch.from_numpy(params))
    return {name: np.sqrt(square.double().numpy()) for name, square in sorted(squares.items())}


def floor_of(residuals: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Per norm, the rms over all samples and, under "max_" + norm, the largest."""
    floor: dict[str, float] = {}
    for name, each in residuals.items():
        values = np.array(each)
        floor |= {name: float(np.sqrt(np.mean(values**2))), f"max_{name}": float(values.max())}
    return floor
