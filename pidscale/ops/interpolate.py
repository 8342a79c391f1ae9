"""Weights with which the values of grid points make readings between them: linear interpolation, and its means and slopes.

Between two points of an axis a field is linear; beyond the outermost points of an axis without a period (half a spacing, on
grids of cells) it is constant. Knows no fields, no equations and no ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pidscale.ops.grid import Grid

NARROW = 1e-6  # an interval below this number of spacings is a point


def is_periodic(grid: Grid, dim: int) -> bool:
    """Return whether a grid is periodic along a dim, 0 for y and 1 for x."""
    return grid.boundary == "periodic" and (grid.kind != "strip" or dim == 1)


def point_coordinates(grid: Grid, dim: int) -> Tensor:
    """Return the coordinates of the points along a dim, float64 [points], from 0 to the extent."""
    steps = torch.arange(grid.shape[dim], dtype=torch.float64, device="cpu")
    return (steps + (0.5 if grid.kind == "cell" else 0.0)) * grid.spacing[dim]


def mean_weights(grid: Grid, dim: int, low_M: Tensor, high_M: Tensor) -> Tensor:
    """Return the weights of the mean over an interval of an axis; those of the value, where the interval is a point.

    Args:
        grid: The grid.
        dim: The axis: 0 for y, 1 for x.
        low_M: Where the intervals begin, coordinates from 0 to the extent.
        high_M: Where they end, not below `low_M`.

    Returns:
        Weights, float64 [M, points], which sum to 1.
    """
    low, high = (_steps(grid, dim, place) for place in (low_M, high_M))
    length = (high - low)[:, None]
    mean = (_integral(grid, dim, high) - _integral(grid, dim, low)) / length.clamp_min(NARROW)
    return torch.where(length < NARROW, _value(grid, dim, (low + high) / 2), mean)


def slope_weights(grid: Grid, dim: int, place_M: Tensor) -> Tensor:
    """Return the weights of the mean slope over one spacing around a place; over half of one at an end without a period.

    Args:
        grid: The grid.
        dim: The axis: 0 for y, 1 for x.
        place_M: Coordinates from 0 to the extent.

    Returns:
        Weights, float64 [M, points], in the inverse unit of the extent; they sum to 0.
    """
    middle = _steps(grid, dim, place_M)
    low, high = middle - 0.5, middle + 0.5
    if not is_periodic(grid, dim):
        last = grid.shape[dim] - 1
        low = low.clamp(0, last - 0.5)
        high = high.clamp(0.5, last)
    difference = _value(grid, dim, high) - _value(grid, dim, low)
    return difference / ((high - low)[:, None] * grid.spacing[dim])


def _steps(grid: Grid, dim: int, place_M: Tensor) -> Tensor:
    """Return coordinates in spacings from the first point, float64."""
    return place_M.double() / grid.spacing[dim] - (0.5 if grid.kind == "cell" else 0.0)


def _away(grid: Grid, dim: int, steps_M: Tensor) -> Tensor:
    """Return the distances [M, points] of places to the points of an axis, in spacings; the shortest where it is periodic."""
    points = grid.shape[dim]
    away = steps_M[:, None] - torch.arange(points, dtype=torch.float64)
    return away - points * torch.round(away / points) if is_periodic(grid, dim) else away


def _value(grid: Grid, dim: int, steps_M: Tensor) -> Tensor:
    """Return the weights [M, points] of the value at places."""
    if not is_periodic(grid, dim):
        steps_M = steps_M.clamp(0, grid.shape[dim] - 1)
    return (1 - _away(grid, dim, steps_M).abs()).clamp_min(0)


def _integral(grid: Grid, dim: int, steps_M: Tensor) -> Tensor:
    """Return the weights [M, points] of an integral from a common place to these, in spacings."""
    points = grid.shape[dim]
    if is_periodic(grid, dim):  # the hats of the first period, and what of their neighbours reaches into it
        away = steps_M[:, None, None] - torch.arange(points, dtype=torch.float64)[:, None]
        return _hat_integral(away - points * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)).sum(dim=-1)
    inside = steps_M.clamp(0, points - 1)
    weights = _hat_integral(inside[:, None] - torch.arange(points, dtype=torch.float64))
    weights[:, 0] += (steps_M - inside).clamp_max(0)
    weights[:, -1] += (steps_M - inside).clamp_min(0)
    return weights


def _hat_integral(away: Tensor) -> Tensor:
    """Return the integral of max(0, 1 - |s|) over s from -1 to these numbers."""
    a = away.clamp(-1, 1)
    return torch.where(a < 0, (a + 1).square() / 2, 1 - (1 - a).square() / 2)
