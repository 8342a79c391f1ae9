"""Swap the split dim with the last one, and back: what transforms over all rows need. Knows no physics and no models.

Shapes: tiles are [..., y, K] with some rows and all columns; columns [..., Y, k] have all rows and some columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pidscale.parallel.mesh import Space
from pidscale.parallel.split import Cut, exchange


def _to_columns(tile: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    lead, wide = tile.shape[:-2], columns.sizes[space.rank]
    parts = [tile[..., columns.rows(rank)] for rank in range(space.size)]
    shapes = [(*lead, height, wide) for height in rows.sizes]
    return torch.cat(exchange(parts, shapes, space, "transpose"), dim=-2)


def _to_rows(field: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    lead, high = field.shape[:-2], rows.sizes[space.rank]
    parts = [field[..., rows.rows(rank), :] for rank in range(space.size)]
    shapes = [(*lead, high, wide) for wide in columns.sizes]
    return torch.cat(exchange(parts, shapes, space, "transpose"), dim=-1)


class _Swap(torch.autograd.Function):
    """Values only move, so that the adjoint is the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: bool, rows: Cut, columns: Cut, space: Space) -> Tensor:
        ctx.way = there, rows, columns, space
        return (_to_columns if there else _to_rows)(x, rows, columns, space)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        there, rows, columns, space = ctx.way
        return (_to_rows if there else _to_columns)(grad, rows, columns, space), None, None, None, None


def to_columns(tile: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    """[..., y, K] -> [..., Y, k], real or complex. One all-to-all, and one back for the gradients."""
    swapped: Tensor = _Swap.apply(tile, True, rows, columns, space)
    return swapped


def to_rows(field: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    """[..., Y, k] -> [..., y, K], real or complex. One all-to-all, and one back for the gradients."""
    swapped: Tensor = _Swap.apply(field, False, rows, columns, space)
    return swapped
