"""What a stencil or a transform sees: the rows at hand with their borders attached. This is the window of one process.

A window of another kind may hold some rows of a field, fetch the borders from its neighbours and swap rows for columns;
residuals only ever ask a window, so they never know. Knows no equations and no ranks.

Shapes: u_BCyX the rows at hand of all channels, here all rows. Sums are shares: those of all holders of a field add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from pidscale.ops.grid import Grid

Form = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Window:
    """All rows of a field in one process. grid: of the whole field."""

    grid: Grid

    @property
    def holders(self) -> int:
        """How many processes hold the field between them."""
        return 1

    @property
    def rows(self) -> slice:
        """The rows at hand."""
        return slice(0, self.grid.shape[0])

    @property
    def first(self) -> bool:
        """Whether the first row is at hand."""
        return self.rows.start == 0

    @property
    def last(self) -> bool:
        """Whether the last row is at hand."""
        return self.rows.stop == self.grid.shape[0]

    def over(self, grid: Grid) -> Self:
        """The window of the same holders on another grid."""
        return replace(self, grid=grid)

    def crop(self, field_YX: Tensor) -> Tensor:
        """The rows at hand of a whole field [..., Y, X]."""
        return field_YX[..., self.rows, :]

    def stencil(self, fields_BCyX: Tensor, width: int, form: Form) -> Tensor:
        """A local form of the fields, which loses `width` points on every side of what it is given.

        Periodic grids wrap, cells repeat their edge (no flux). Node grids have no neighbour beyond their ends: there the
        result has `width` points less.
        """
        return form(self._beyond_ends(self._beyond_sides(fields_BCyX, width), width))

    def _beyond_sides(self, fields_BCyX: Tensor, width: int) -> Tensor:
        """With `width` more points on the left and on the right, where the grid has them."""
        if self.grid.kind == "periodic":
            left, right = fields_BCyX[..., -width:], fields_BCyX[..., :width]
        elif self.grid.kind == "cell":
            repeats = (*fields_BCyX.shape[:-1], width)
            left, right = fields_BCyX[..., :1].expand(repeats), fields_BCyX[..., -1:].expand(repeats)
        else:
            return fields_BCyX
        return torch.cat([left, fields_BCyX, right], dim=-1)

    def _beyond_ends(self, fields_BCyX: Tensor, width: int) -> Tensor:
        """With `width` more rows beyond those ends of the field that are at hand, where the grid has them."""
        if self.grid.kind == "periodic" and self.holders == 1:
            return functional.pad(fields_BCyX, (0, 0, width, width), mode="circular")
        return self._ghost_rows(fields_BCyX, width * self.first, width * self.last)

    def _ghost_rows(self, fields_BCyX: Tensor, above: int, below: int) -> Tensor:
        """With rows that repeat the first and the last one, on grids of cells."""
        if self.grid.kind == "cell":
            return functional.pad(fields_BCyX, (0, 0, above, below), mode="replicate")
        return fields_BCyX

    def line_up(self, u_BTX: Tensor, above: int, below: int, rate: Form) -> tuple[Tensor, Tensor]:
        """Rows that are times with up to `above` more before and `below` more after them, and a rate of each row."""
        return u_BTX, rate(u_BTX)

    def edges(self, field_ByX: Tensor) -> Tensor:
        """The points at hand of the four edges, [B, n], each once: 2 (Y + X) - 4 for all holders together."""
        inner = field_ByX[:, int(self.first) : field_ByX.shape[1] - int(self.last)]
        ends = [field_ByX[:, 0]] * self.first + [field_ByX[:, -1]] * self.last
        return torch.cat([*ends, inner[:, :, 0], inner[:, :, -1]], dim=1)

    def columns(self, count: int) -> slice:
        """Which of so many columns are at hand after `to_columns`."""
        return slice(0, count)

    def to_columns(self, field_yK: Tensor, lost: int = 0) -> Tensor:
        """[..., y, K] -> [..., Y, k]: all rows of the columns at hand. lost: rows that lack at both ends of the field."""
        return field_yK

    def to_rows(self, field_Yk: Tensor, columns: int) -> Tensor:
        """[..., Y, k] -> [..., y, K] of so many columns: back."""
        return field_Yk

    def top_row(self, field_yX: Tensor) -> Tensor:
        """The first row of the whole field, [..., 1, X], outside the graph."""
        return field_yX[..., :1, :].detach()

    def total(self, values: Tensor) -> Tensor:
        """The sum of shares over all holders, on each of them, with gradients."""
        return values
