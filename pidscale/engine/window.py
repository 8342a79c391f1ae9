"""The window of one rank of a space group: some rows of a field, borders from its neighbours, columns by transposing.

The split twin of ops/window: residuals ask it the same questions. Knows grids and ranks; knows no equations and no models.

Messages of a residual: one to each neighbour for all fields and the widest stencil, or an all-to-all for each transform;
what a residual does not need is not sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.window import Form, Window
from pidscale.parallel.halo import attach, depart, land
from pidscale.parallel.mesh import Space
from pidscale.parallel.reduce import total
from pidscale.parallel.split import Cut, counted, whole
from pidscale.parallel.transpose import to_columns, to_rows


@dataclass(frozen=True)
class TileWindow(Window):
    """Rows of a whole grid as `cut` shares them over a space group."""

    cut: Cut
    space: Space

    @property
    def holders(self) -> int:
        """The size of the space group."""
        return self.space.size

    @property
    def rows(self) -> slice:
        """This rank's rows."""
        return self.cut.rows(self.space.rank)

    def over(self, grid: Grid) -> TileWindow:
        """On another grid, whose rows are shared as evenly as they can be."""
        return replace(self, grid=grid, cut=Cut.even(grid.shape[0], self.space.size))

    def stencil(self, fields_BCyX: Tensor, width: int, form: Form) -> Tensor:
        """As in one process. The form of the inner rows is computed while the borders fly: one message a neighbour."""
        wraps, rows = self.grid.kind == "periodic", fields_BCyX.shape[-2]
        if rows < 2 * width + 1:
            wide = self._beyond_sides(attach(fields_BCyX, width, width, wraps, self.space), width)
            return form(self._beyond_ends(wide, width))
        flight = depart(fields_BCyX, width, width, wraps, self.space)
        sides = self._beyond_sides(fields_BCyX, width)
        own = form(sides)  # rows `width` to y - width
        above, below = land(fields_BCyX, flight, width, width, wraps, self.space)
        top = torch.cat([self._beyond_sides(above, width), sides[..., : 2 * width, :]], dim=-2)
        top = self._ghost_rows(top, width * self.first, 0)
        bottom = torch.cat([sides[..., rows - 2 * width :, :], self._beyond_sides(below, width)], dim=-2)
        bottom = self._ghost_rows(bottom, 0, width * self.last)
        parts = [form(part) for part in (top, bottom) if part.shape[-2] > 2 * width]
        has_top = top.shape[-2] > 2 * width
        return torch.cat([*parts[:has_top], own, *parts[has_top:]], dim=-2)

    def line_up(self, u_BTX: Tensor, above: int, below: int, rate: Form) -> tuple[Tensor, Tensor]:
        """As in one process, where more rows follow; rates of this rank's rows are computed while the others fly."""
        flight = depart(u_BTX, above, below, False, self.space)
        own = rate(u_BTX)
        before, after = land(u_BTX, flight, above, below, False, self.space)
        earlier, later = ([rate(part)] if part.shape[-2] else [] for part in (before, after))
        return torch.cat([before, u_BTX, after], dim=-2), torch.cat([*earlier, own, *later], dim=-2)

    def columns(self, count: int) -> slice:
        """This rank's share of the columns."""
        return Cut.even(count, self.space.size).rows(self.space.rank)

    def to_columns(self, field_yK: Tensor, lost: int = 0) -> Tensor:
        """One all-to-all."""
        rows = self.cut.inside(lost, self.cut.total - lost)
        return to_columns(field_yK, rows, Cut.even(field_yK.shape[-1], self.space.size), self.space)

    def to_rows(self, field_Yk: Tensor, columns: int) -> Tensor:
        """One all-to-all."""
        return to_rows(field_Yk, self.cut, Cut.even(columns, self.space.size), self.space)

    def top_row(self, field_yX: Tensor) -> Tensor:
        """One all-reduce, outside the graph."""
        own = field_yX[..., :1, :].detach()
        return total(own if self.first else torch.zeros_like(own), self.space)

    def total(self, values: Tensor) -> Tensor:
        """One all-reduce."""
        return total(values, self.space)


def on_first(window: Window, values_yX: Tensor, stride: int) -> Tensor | None:
    """Every so manieth row and column of values [..., y, X], picked before they travel; None on all holders but the first.

    Two collectives: how many rows each rank has (some residuals have none on an edge), then the rows.
    """
    if not isinstance(window, TileWindow):
        return values_yX[..., ::stride, ::stride]
    cut = counted(values_yX.shape[-2], window.space, values_yX.device)
    start = cut.ends[window.space.rank]
    picked = values_yX[..., -start % stride :: stride, ::stride]
    return whole(picked, Cut(tuple(-(-end // stride) for end in cut.ends)), window.space)
