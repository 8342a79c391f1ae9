"""Finite differences and flux forms on a window. Second order. Knows no equations and no ranks.

Differences are taken before they are scaled by 1 / h^2, so that float32 loses as little as it can.
Shapes: u_BYX field with its borders; results lose one point on each side.
"""

from __future__ import annotations

from torch import Tensor


def flux_divergence(coefficient_BYX: Tensor, u_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """div(a grad u) with arithmetic-mean faces, [B, Y - 2, X - 2], from fields with one border point on every side."""
    a, u = coefficient_BYX, u_BYX
    along_y = (a[:, 1:] + a[:, :-1])[:, :, 1:-1] * (u[:, 1:] - u[:, :-1])[:, :, 1:-1]
    along_x = (a[:, :, 1:] + a[:, :, :-1])[:, 1:-1] * (u[:, :, 1:] - u[:, :, :-1])[:, 1:-1]
    per_y = (along_y[:, 1:] - along_y[:, :-1]) * (0.5 / spacing[0] ** 2)
    per_x = (along_x[:, :, 1:] - along_x[:, :, :-1]) * (0.5 / spacing[1] ** 2)
    return per_y + per_x


def laplacian(u_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """The 5-point Laplacian, [B, Y - 2, X - 2], from a field with one border point on every side."""
    centre = u_BYX[:, 1:-1, 1:-1]
    per_y = ((u_BYX[:, 2:, 1:-1] - centre) - (centre - u_BYX[:, :-2, 1:-1])) / spacing[0] ** 2
    per_x = ((u_BYX[:, 1:-1, 2:] - centre) - (centre - u_BYX[:, 1:-1, :-2])) / spacing[1] ** 2
    return per_y + per_x
