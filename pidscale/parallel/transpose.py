"""Distributed transposes: from a field split by rows to one split by columns, and back, as transforms over all rows need.

Shapes: tiles are [..., y, K] with some rows and all columns; columns are [..., Y, k] with all rows and some columns. Knows no
physics and no models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pidscale.parallel.mesh import Space
from pidscale.parallel.split import Cut, exchange


def _to_columns(tile: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    parts = [tile[..., columns.rows(rank)] for rank in range(space.size)]
    shapes = [(*tile.shape[:-2], height, columns.sizes[space.rank]) for height in rows.sizes]
    return torch.cat(exchange(parts, shapes, space, "transpose"), dim=-2)


def _to_rows(field: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    parts = [field[..., rows.rows(rank), :] for rank in range(space.size)]
    shapes = [(*field.shape[:-2], rows.sizes[space.rank], width) for width in columns.sizes]
    return torch.cat(exchange(parts, shapes, space, "transpose"), dim=-1)


class _Transpose(torch.autograd.Function):
    """Values only move between ranks, so that the gradient takes the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, towards_columns: bool, rows: Cut, columns: Cut, space: Space) -> Tensor:
        ctx.way = (towards_columns, rows, columns, space)
        return (_to_columns if towards_columns else _to_rows)(x, rows, columns, space)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        towards_columns, rows, columns, space = ctx.way
        return (_to_rows if towards_columns else _to_columns)(grad, rows, columns, space), None, None, None, None


def to_columns(tile: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    """Exchange all columns of this rank's rows for all rows of its columns. One all-to-all, and one back for the gradients.

    Args:
        tile: This rank's rows [..., y, K], real or complex.
        rows: The rows of every rank.
        columns: The columns of every rank.
        space: The space group.

    Returns:
        This rank's columns [..., Y, k].
    """
    transposed: Tensor = _Transpose.apply(tile, True, rows, columns, space)
    return transposed


def to_rows(field: Tensor, rows: Cut, columns: Cut, space: Space) -> Tensor:
    """Exchange all rows of this rank's columns for all columns of its rows. One all-to-all, and one back for the gradients.

    Args:
        field: This rank's columns [..., Y, k], real or complex.
        rows: The rows of every rank.
        columns: The columns of every rank.
        space: The space group.

    Returns:
        This rank's rows [..., y, K].
    """
    transposed: Tensor = _Transpose.apply(field, False, rows, columns, space)
    return transposed
