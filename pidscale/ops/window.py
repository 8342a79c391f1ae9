"""What a stencil sees: the rows at hand with their borders attached. This is the window of one process.

A window of another kind may hold some rows of a field and fetch the borders from its neighbours; stencils only ever
ask a window, so they never know. Knows no equations and no ranks.

Shapes: u_BCYX whole field.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pidscale.ops.grid import Grid


@dataclass(frozen=True)
class Window:
    """All rows of a field in one process."""

    grid: Grid

    def attach(self, fields_BCYX: Tensor, width: int) -> Tensor:
        """Return the fields with `width` more points on every side where the grid has a neighbour there.

        Periodic grids wrap; node grids have no neighbour beyond their ends, and stencils then lose `width` points.
        """
        if self.grid.kind == "periodic":
            return functional.pad(fields_BCYX, (width, width, width, width), mode="circular")
        return fields_BCYX

    def edges(self, field_BYX: Tensor) -> Tensor:
        """Return the points on the four edges, [B, 2 (Y + X) - 4], each once."""
        inner = field_BYX[:, 1:-1]
        return torch.cat([field_BYX[:, 0], field_BYX[:, -1], inner[:, :, 0], inner[:, :, -1]], dim=1)

    def square_sum(self, field: Tensor) -> tuple[Tensor, int]:
        """Return (sum of squares [B], number of points) over everything but the batch: a sum and a count, to be added."""
        return field.square().flatten(1).sum(dim=1), field[0].numel()
