"""The window through which a stencil or a transform sees a field: the rows at hand, with their borders on request.

This is the window of one process, which holds all rows and sends nothing. A subclass may hold some rows, fetch borders from
its neighbours and exchange rows for columns; residuals ask the window for all of that and do not depend on its kind. Knows no
equations and no ranks.

Shapes: u_BCyX the rows at hand of all channels. Sums are shares: those of all processes that share a field add up.
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
"""A local form: a function of a field that uses only points near the one it is evaluated at."""


@dataclass(frozen=True)
class Window:
    """The window of a process that holds all rows of a field.

    Attributes:
        grid: Grid of the whole field.
    """

    grid: Grid

    @property
    def holders(self) -> int:
        """Number of processes that share the field."""
        return 1

    @property
    def rows(self) -> slice:
        """Range of the rows at hand."""
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
        """Return the window of the same processes on another grid."""
        return replace(self, grid=grid)

    def crop(self, field_YX: Tensor) -> Tensor:
        """Return the rows at hand of a whole field [..., Y, X]."""
        return field_YX[..., self.rows, :]

    def stencil(self, fields_BCyX: Tensor, width: int, form: Form) -> Tensor:
        """Return a local form of the fields at the rows at hand.

        Periodic grids wrap around, and cells repeat their edge (zero flux). Nodes have no neighbours beyond the ends of the
        grid, where the result has `width` fewer points.

        Args:
            fields_BCyX: Fields, the rows at hand.
            width: Number of points that the form needs on each side.
            form: Form whose result has `width` fewer points on each side than its argument.

        Returns:
            Result of the form.
        """
        return form(self._beyond_ends(self._beyond_sides(fields_BCyX, width), width))

    def _beyond_sides(self, fields_BCyX: Tensor, width: int) -> Tensor:
        """Return the fields with `width` more columns on both sides, where the grid has them."""
        if self.grid.kind == "periodic":
            left = fields_BCyX[..., -width:]
            right = fields_BCyX[..., :width]
        elif self.grid.kind == "cell":
            repeats = (*fields_BCyX.shape[:-1], width)
            left = fields_BCyX[..., :1].expand(repeats)
            right = fields_BCyX[..., -1:].expand(repeats)
        else:
            return fields_BCyX
        return torch.cat([left, fields_BCyX, right], dim=-1)

    def _beyond_ends(self, fields_BCyX: Tensor, width: int) -> Tensor:
        """Return the fields with `width` more rows beyond those ends of the field that are at hand, if the grid has them."""
        if self.grid.kind == "periodic" and self.holders == 1:
            return functional.pad(fields_BCyX, (0, 0, width, width), mode="circular")
        return self._ghost_rows(fields_BCyX, width * self.first, width * self.last)

    def _ghost_rows(self, fields_BCyX: Tensor, above: int, below: int) -> Tensor:
        """Return the fields with so many rows that repeat the first and the last row, on grids of cells."""
        if self.grid.kind == "cell":
            return functional.pad(fields_BCyX, (0, 0, above, below), mode="replicate")
        return fields_BCyX

    def line_up(self, u_BTX: Tensor, above: int, below: int, rate: Form) -> tuple[Tensor, Tensor]:
        """Return rows that are times, with neighbouring rows, and a rate of each of them.

        Args:
            u_BTX: The rows at hand.
            above: Number of earlier rows that are needed, as far as the field has them.
            below: Number of later rows that are needed, as far as the field has them.
            rate: Function of rows, evaluated for each row alone.

        Returns:
            The rows with their neighbours, and the rate of each of these rows.
        """
        return u_BTX, rate(u_BTX)

    def edges(self, field_ByX: Tensor) -> Tensor:
        """Return the points at hand of the four edges [B, n], each once: 2 (Y + X) - 4 for all processes together."""
        inner = field_ByX[:, int(self.first) : field_ByX.shape[1] - int(self.last)]
        ends = [field_ByX[:, 0]] * self.first + [field_ByX[:, -1]] * self.last
        return torch.cat([*ends, inner[:, :, 0], inner[:, :, -1]], dim=1)

    def columns(self, count: int) -> slice:
        """Return the range of the columns, of `count`, that are at hand after `to_columns`."""
        return slice(0, count)

    def to_columns(self, field_yK: Tensor, lost: int = 0) -> Tensor:
        """Exchange rows for columns.

        Args:
            field_yK: All columns of the rows at hand [..., y, K].
            lost: Number of rows that are missing at each end of the field.

        Returns:
            All rows of the columns at hand [..., Y, k].
        """
        return field_yK

    def to_rows(self, field_Yk: Tensor, columns: int, lost: int = 0) -> Tensor:
        """Exchange columns for rows, the inverse of `to_columns`.

        Args:
            field_Yk: All rows of the columns at hand [..., Y, k].
            columns: Number K of all columns.
            lost: Number of rows that are missing at each end of the field.

        Returns:
            All columns of the rows at hand [..., y, K].
        """
        return field_Yk

    def top_row(self, field_yX: Tensor) -> Tensor:
        """Return the first row of the whole field [..., 1, X], detached."""
        return field_yX[..., :1, :].detach()

    def from_above(self, like: Tensor) -> Tensor:
        """Return the tensor that the process above gave to `to_below`; `like` itself where the first row is at hand.

        Args:
            like: Tensor of the same shape and dtype.

        Returns:
            The tensor.
        """
        return like

    def to_below(self, values: Tensor, carrier: Tensor) -> Tensor:
        """Give a tensor to the process below, which waits for it.

        Args:
            values: The tensor.
            carrier: A tensor that the result of this process depends on.

        Returns:
            The carrier, through which the gradient of the process below reaches `values`.
        """
        return carrier

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of shares over all processes that share the field, differentiable, on each of them."""
        return values
