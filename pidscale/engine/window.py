"""The window of one rank of a space group: some rows of a field, halos from its neighbours, columns by transposing.

This is the split form of ops/window, with the same methods for residuals. Messages of a residual: one to each neighbour for
all fields and the widest stencil, or an all-to-all for each transform. Knows grids and ranks; knows no equations, no models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.window import Form, Window
from pidscale.parallel.halo import attach_halo, finish_halo, start_halo
from pidscale.parallel.mesh import Space
from pidscale.parallel.reduce import total
from pidscale.parallel.relay import from_above, to_below
from pidscale.parallel.split import Cut, gather_cut, gather_on_first
from pidscale.parallel.transpose import to_columns, to_rows


@dataclass(frozen=True)
class TileWindow(Window):
    """The rows of a grid that one rank of a space group holds.

    Attributes:
        cut: The rows of every rank.
        space: The space group.
    """

    cut: Cut
    space: Space

    @property
    def holders(self) -> int:
        """The number of ranks in the space group."""
        return self.space.size

    @property
    def rows(self) -> slice:
        """The rows of this rank."""
        return self.cut.rows(self.space.rank)

    def over(self, grid: Grid) -> TileWindow:
        """Return the window of this rank on another grid, whose rows are divided as evenly as possible."""
        return replace(self, grid=grid, cut=Cut.even(grid.shape[0], self.space.size))

    def stencil(self, fields_BCyX: Tensor, width: int, form: Form) -> Tensor:
        """Apply a local form as the window of one process does. One message to each neighbour, and one back for gradients.

        The form of the inner rows is computed while the messages are under way.

        Args:
            fields_BCyX: This rank's rows of all channels.
            width: The points that the form removes on every side.
            form: The form.

        Returns:
            The form at this rank's rows.
        """
        wraps = self.grid.kind == "periodic"
        rows = fields_BCyX.shape[-2]
        if rows < 2 * width + 1:
            wide = self._beyond_sides(attach_halo(fields_BCyX, width, width, wraps, self.space), width)
            return form(self._beyond_ends(wide, width))
        exchange = start_halo(fields_BCyX, width, width, wraps, self.space)
        sides = self._beyond_sides(fields_BCyX, width)
        own = form(sides)  # rows `width` to y - width
        above, below = finish_halo(fields_BCyX, exchange, width, width, wraps, self.space)
        top = torch.cat([self._beyond_sides(above, width), sides[..., : 2 * width, :]], dim=-2)
        top = self._ghost_rows(top, width * self.first, 0)
        bottom = torch.cat([sides[..., rows - 2 * width :, :], self._beyond_sides(below, width)], dim=-2)
        bottom = self._ghost_rows(bottom, 0, width * self.last)
        parts = [form(part) for part in (top, bottom) if part.shape[-2] > 2 * width]
        has_top = top.shape[-2] > 2 * width
        return torch.cat([*parts[:has_top], own, *parts[has_top:]], dim=-2)

    def line_up(self, u_BTX: Tensor, above: int, below: int, rate: Form) -> tuple[Tensor, Tensor]:
        """Return rows that are times with rows of the neighbours attached, and the rate of each row.

        One message to each neighbour, and one back for gradients. The rates of this rank's rows are computed meanwhile.

        Args:
            u_BTX: This rank's rows.
            above: The number of earlier rows to attach, as far as the field has them.
            below: The number of later rows to attach.
            rate: The rate of change of rows.

        Returns:
            The rows and their rates.
        """
        exchange = start_halo(u_BTX, above, below, False, self.space)
        own = rate(u_BTX)
        before, after = finish_halo(u_BTX, exchange, above, below, False, self.space)
        earlier, later = ([rate(part)] if part.shape[-2] else [] for part in (before, after))
        return torch.cat([before, u_BTX, after], dim=-2), torch.cat([*earlier, own, *later], dim=-2)

    def columns(self, count: int) -> slice:
        """Return the columns of this rank after `to_columns`."""
        return Cut.even(count, self.space.size).rows(self.space.rank)

    def to_columns(self, field_yK: Tensor, lost: int = 0) -> Tensor:
        """Exchange all columns of this rank's rows for all rows of its columns. One all-to-all."""
        rows = self.cut.inside(lost, self.cut.total - lost)
        return to_columns(field_yK, rows, Cut.even(field_yK.shape[-1], self.space.size), self.space)

    def to_rows(self, field_Yk: Tensor, columns: int, lost: int = 0) -> Tensor:
        """Exchange all rows of this rank's columns for all columns of its rows. One all-to-all."""
        rows = self.cut.inside(lost, self.cut.total - lost)
        return to_rows(field_Yk, rows, Cut.even(columns, self.space.size), self.space)

    def top_row(self, field_yX: Tensor) -> Tensor:
        """Return the first row of the whole field, without gradients. One all-reduce."""
        own = field_yX[..., :1, :].detach()
        return total(own if self.first else torch.zeros_like(own), self.space)

    def from_above(self, like: Tensor) -> Tensor:
        """Return what the rank above has handed on. One message, and one back for the gradient."""
        return like if self.first else from_above(like, self.space)

    def to_below(self, values: Tensor, carrier: Tensor) -> Tensor:
        """Hand a tensor on to the rank below. One message, and one back for the gradient."""
        return carrier if self.last else to_below(values, carrier, self.space)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over the space group on each of its ranks. One all-reduce, and one for the gradient."""
        return total(values, self.space)


def on_first(window: Window, values_yX: Tensor, stride: int) -> Tensor | None:
    """Return every `stride`-th row and column of a field on the first rank of its space group.

    Values are picked before they are sent. Two collectives: an all-gather of the number of rows of each rank, since some
    residuals have none on an edge, and an all-to-all of the picked values.

    Args:
        window: The window of this rank.
        values_yX: This rank's rows [..., y, X].
        stride: The distance of the picked rows and columns.

    Returns:
        The picked values [..., ceil(Y / stride), ceil(X / stride)]; None on the other ranks.
    """
    if not isinstance(window, TileWindow):
        return values_yX[..., ::stride, ::stride]
    cut = gather_cut(values_yX.shape[-2], window.space, values_yX.device)
    start = cut.ends[window.space.rank]
    picked = values_yX[..., -start % stride :: stride, ::stride]
    return gather_on_first(picked, Cut(tuple(-(-end // stride) for end in cut.ends)), window.space)
