"""Rows of neighbouring ranks: one packed message for each border, and the exact adjoint. Knows no physics and no models.

Shapes: tiles are [..., y, X]; whatever stands before the rows (samples, channels, frames) travels in one message.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pidscale.parallel.mesh import Space
from pidscale.parallel.split import layout_of


class Flight:
    """Rows under way to and from both neighbours.

    to_above, to_below: what this rank sends; above, below: rows that come from there. Where the field has an end, and does
    not wrap around it, nothing is sent and no rows come.
    """

    def __init__(
        self, to_above: Tensor, to_below: Tensor, above: int, below: int, wraps: bool, space: Space, kind: str = "halo"
    ) -> None:
        self.space = space
        has_above = wraps or space.rank > 0
        has_below = wraps or space.rank < space.size - 1
        lead, width = to_above.shape[:-2], to_above.shape[-1]
        self.above = to_above.new_empty(*lead, above if has_above else 0, width)
        self.below = to_above.new_empty(*lead, below if has_below else 0, width)
        # Of two ranks in a ring each is above and below the other: messages between them keep their order, so what was sent
        # up first is taken as coming from below first.
        sends = [(space.above, to_above, has_above), (space.below, to_below, has_below)]
        receives = [(space.below, self.below, has_below), (space.above, self.above, has_above)]
        sent = [(peer, rows.contiguous()) for peer, rows, there in sends if there and rows.numel()]
        works = [dist.P2POp(dist.isend, rows, peer, space.group) for peer, rows in sent]
        works += [dist.P2POp(dist.irecv, t, peer, space.group) for peer, t, there in receives if there and t.numel()]
        self._kept = sent  # until they have left
        self._works = dist.batch_isend_irecv(works) if works else []
        space.traffic.sent(kind, len(sent), sum(rows.numel() * rows.element_size() for _, rows in sent))

    def land(self) -> tuple[Tensor, Tensor]:
        """Wait, and return the rows from above and from below."""
        with self.space.traffic.waiting():
            for work in self._works:
                work.wait()
        self._works, self._kept = [], []
        return self.above, self.below


def depart(tile: Tensor, above: int, below: int, wraps: bool, space: Space) -> Flight:
    """Send the borders that neighbours of this rank need in order to see `above` and `below` more rows of their own."""
    rows, tile = tile.shape[-2], tile.detach()
    if max(above, below) > rows:
        raise ValueError(f"a tile of {rows} rows cannot give its neighbours {max(above, below)}: lower cluster.space")
    return Flight(tile[..., :below, :], tile[..., rows - above :, :], above, below, wraps, space)


def _fold(grad_above: Tensor, grad_below: Tensor, above: int, below: int, wraps: bool, space: Space) -> Flight:
    """Send gradients of received rows back to their owners; what lands belongs to this rank's last and first rows."""
    return Flight(grad_above, grad_below, below, above, wraps, space, "halo gradient")


class _Land(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tile: Tensor, flight: Flight, above: int, below: int, wraps: bool, space: Space
    ) -> tuple[Tensor, Tensor]:
        ctx.shape, ctx.border = tile.shape, (above, below, wraps, space)
        return flight.land()

    @staticmethod
    def backward(ctx: Any, grad_above: Tensor, grad_below: Tensor) -> tuple[Tensor | None, ...]:
        above, below, wraps, space = ctx.border
        first, last = _fold(grad_above, grad_below, above, below, wraps, space).land()
        grad = grad_above.new_zeros(ctx.shape)
        grad[..., : first.shape[-2], :] += first
        grad[..., ctx.shape[-2] - last.shape[-2] :, :] += last
        return grad, None, None, None, None, None


def land(tile: Tensor, flight: Flight, above: int, below: int, wraps: bool, space: Space) -> tuple[Tensor, Tensor]:
    """The rows from above [..., above, X] and below that `depart` asked for; none beyond an end that does not wrap.

    What is computed between `depart` and `land` runs while they fly. One message for each neighbour, and one back for the
    gradients.
    """
    rows: tuple[Tensor, Tensor] = _Land.apply(tile, flight, above, below, wraps, space)
    return rows


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tile: Tensor, above: int, below: int, wraps: bool, zeros: bool, space: Space) -> Tensor:
        layout = layout_of(
            tile
        )  # rows come packed: joined as they are, or with none, they would cost a tile its layout
        top, bottom = depart(tile, above, below, wraps, space).land()
        ctx.border, ctx.layout = (above, below, wraps, space), layout
        ctx.came = top.shape[-2], bottom.shape[-2]
        if zeros:
            top = top if ctx.came[0] else top.new_zeros(*top.shape[:-2], above, top.shape[-1])
            bottom = bottom if ctx.came[1] else bottom.new_zeros(*bottom.shape[:-2], below, bottom.shape[-1])
        ctx.rows = top.shape[-2], tile.shape[-2]
        parts = [rows.contiguous(memory_format=layout) for rows in (top, tile, bottom) if rows.shape[-2]]
        return torch.cat(parts, dim=-2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        above, below, wraps, space = ctx.border
        (start, rows), (came_above, came_below) = ctx.rows, ctx.came
        top, bottom = grad[..., start - came_above : start, :], grad[..., start + rows : start + rows + came_below, :]
        flight = _fold(top, bottom, above, below, wraps, space)
        own = grad[..., start : start + rows, :].clone(memory_format=ctx.layout)
        first, last = flight.land()
        own[..., : first.shape[-2], :] += first
        own[..., rows - last.shape[-2] :, :] += last
        return own, None, None, None, None, None


def attach(tile: Tensor, above: int, below: int, wraps: bool, space: Space, zeros: bool = False) -> Tensor:
    """The tile with rows of its neighbours, [..., above + y + below, X]; fewer at an end that does not wrap, or zeros there.

    Keeps nothing for the backward pass. One message for each neighbour, and one back for the gradients.
    """
    wide: Tensor = _Attach.apply(tile, above, below, wraps, zeros, space)
    return wide
