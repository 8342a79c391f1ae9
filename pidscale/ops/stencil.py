"""Finite differences and flux forms of second order. Knows no equations and no ranks.

Differences are taken before they are divided by h^2, which keeps the rounding error of float32 small.
Shapes: u_BYX field with one border point on each side, which results do not have.
"""

from __future__ import annotations

from torch import Tensor


def flux_divergence(coefficient_BYX: Tensor, u_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Return div(a grad u) with the coefficient of a face as the arithmetic mean of its two points.

    Args:
        coefficient_BYX: a, with one border point on each side.
        u_BYX: u, with one border point on each side.
        spacing: Distances of neighbouring points (hy, hx).

    Returns:
        Divergence [B, Y - 2, X - 2].
    """
    a = coefficient_BYX
    u = u_BYX
    along_y = (a[:, 1:] + a[:, :-1])[:, :, 1:-1] * (u[:, 1:] - u[:, :-1])[:, :, 1:-1]
    along_x = (a[:, :, 1:] + a[:, :, :-1])[:, 1:-1] * (u[:, :, 1:] - u[:, :, :-1])[:, 1:-1]
    per_y = (along_y[:, 1:] - along_y[:, :-1]) * (0.5 / spacing[0] ** 2)
    per_x = (along_x[:, :, 1:] - along_x[:, :, :-1]) * (0.5 / spacing[1] ** 2)
    return per_y + per_x


def laplacian(u_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Return the 5-point Laplacian [B, Y - 2, X - 2] of a field with one border point on each side.

    Args:
        u_BYX: Field with its border points.
        spacing: Distances of neighbouring points (hy, hx).

    Returns:
        Laplacian [B, Y - 2, X - 2].
    """
    centre = u_BYX[:, 1:-1, 1:-1]
    per_y = ((u_BYX[:, 2:, 1:-1] - centre) - (centre - u_BYX[:, :-2, 1:-1])) / spacing[0] ** 2
    per_x = ((u_BYX[:, 1:-1, 2:] - centre) - (centre - u_BYX[:, 1:-1, :-2])) / spacing[1] ** 2
    return per_y + per_x
