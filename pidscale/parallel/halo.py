"""Halo exchange: rows of neighbouring ranks, one packed message for each border, with the exact gradient.

Shapes: tiles are [..., y, X]; whatever stands before the rows (samples, channels, frames) travels in one message. Knows no
physics and no models.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pidscale.parallel.mesh import Space
from pidscale.parallel.split import layout_of


class HaloExchange:
    """Messages to and from both neighbours that are under way; creating it sends and receives without blocking.

    At an end of a field that is not periodic, nothing is sent and no rows are received.

    Args:
        to_above: The rows [..., h, X] to send to the rank above.
        to_below: The rows to send to the rank below.
        above: The number of rows to receive from the rank above.
        below: The number of rows to receive from the rank below.
        wraps: Whether the field is periodic, so that the first and the last rank are neighbours.
        space: The space group.
        kind: The kind of exchange under which `space.traffic` counts the messages.
    """

    def __init__(
        self, to_above: Tensor, to_below: Tensor, above: int, below: int, wraps: bool, space: Space, kind: str = "halo"
    ) -> None:
        self.space = space
        has_above = wraps or space.rank > 0
        has_below = wraps or space.rank < space.size - 1
        lead = to_above.shape[:-2]
        width = to_above.shape[-1]
        self.above = to_above.new_empty(*lead, above if has_above else 0, width)
        self.below = to_above.new_empty(*lead, below if has_below else 0, width)
        # Of two ranks of a periodic field each is above and below the other. Messages between two ranks keep their order, so
        # that what the other rank sends up first is received from below first.
        sends = [(space.above, to_above, has_above), (space.below, to_below, has_below)]
        receives = [(space.below, self.below, has_below), (space.above, self.above, has_above)]
        sent = [(peer, rows.contiguous()) for peer, rows, there in sends if there and rows.numel()]
        works = [dist.P2POp(dist.isend, rows, peer, space.group) for peer, rows in sent]
        works += [dist.P2POp(dist.irecv, t, peer, space.group) for peer, t, there in receives if there and t.numel()]
        self._kept = sent  # until the messages have been sent
        self._works = dist.batch_isend_irecv(works) if works else []
        space.traffic.sent(kind, len(sent), sum(rows.numel() * rows.element_size() for _, rows in sent))

    def wait(self) -> tuple[Tensor, Tensor]:
        """Wait for the messages, and return the rows from above and from below."""
        with self.space.traffic.waiting():
            for work in self._works:
                work.wait()
        self._works = []
        self._kept = []
        return self.above, self.below


def start_halo(tile: Tensor, above: int, below: int, wraps: bool, space: Space) -> HaloExchange:
    """Send the border rows that the neighbours need, and start to receive theirs. One message to each neighbour.

    Args:
        tile: This rank's rows [..., y, X].
        above: The number of rows that every rank needs from the rank above.
        below: The number of rows that every rank needs from the rank below.
        wraps: Whether the field is periodic.
        space: The space group.

    Returns:
        The exchange, for `finish_halo`.

    Raises:
        ValueError: The tile has fewer rows than a neighbour needs.
    """
    rows = tile.shape[-2]
    tile = tile.detach()
    if max(above, below) > rows:
        raise ValueError(f"a tile of {rows} rows cannot give its neighbours {max(above, below)}: lower cluster.space")
    return HaloExchange(tile[..., :below, :], tile[..., rows - above :, :], above, below, wraps, space)


def _return_gradients(
    grad_above: Tensor, grad_below: Tensor, above: int, below: int, wraps: bool, space: Space
) -> HaloExchange:
    """Send the gradients of received rows back to their owners; those received belong to this rank's last and first rows."""
    return HaloExchange(grad_above, grad_below, below, above, wraps, space, "halo gradient")


class _FinishHalo(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tile: Tensor, exchange: HaloExchange, above: int, below: int, wraps: bool, space: Space
    ) -> tuple[Tensor, Tensor]:
        ctx.shape = tile.shape
        ctx.border = (above, below, wraps, space)
        return exchange.wait()

    @staticmethod
    def backward(ctx: Any, grad_above: Tensor, grad_below: Tensor) -> tuple[Tensor | None, ...]:
        above, below, wraps, space = ctx.border
        first, last = _return_gradients(grad_above, grad_below, above, below, wraps, space).wait()
        grad = grad_above.new_zeros(ctx.shape)
        grad[..., : first.shape[-2], :] += first
        grad[..., ctx.shape[-2] - last.shape[-2] :, :] += last
        return grad, None, None, None, None, None


def finish_halo(
    tile: Tensor, exchange: HaloExchange, above: int, below: int, wraps: bool, space: Space
) -> tuple[Tensor, Tensor]:
    """Wait for the rows of the neighbours. What is computed between `start_halo` and this overlaps with the messages.

    One message back to each neighbour for the gradients.

    Args:
        tile: The tile that `start_halo` took.
        exchange: What `start_halo` returned.
        above: The number of rows from above, as `start_halo` took it.
        below: The number of rows from below.
        wraps: Whether the field is periodic.
        space: The space group.

    Returns:
        The rows from above [..., above, X] and from below [..., below, X]; no rows beyond an end that is not periodic.
    """
    rows: tuple[Tensor, Tensor] = _FinishHalo.apply(tile, exchange, above, below, wraps, space)
    return rows


class _AttachHalo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tile: Tensor, above: int, below: int, wraps: bool, zeros: bool, space: Space) -> Tensor:
        # received rows are contiguous: without a conversion they would change the memory layout of the result
        layout = layout_of(tile)
        top, bottom = start_halo(tile, above, below, wraps, space).wait()
        ctx.border = (above, below, wraps, space)
        ctx.layout = layout
        ctx.received = (top.shape[-2], bottom.shape[-2])
        if zeros and not top.shape[-2]:
            top = top.new_zeros(*top.shape[:-2], above, top.shape[-1])
        if zeros and not bottom.shape[-2]:
            bottom = bottom.new_zeros(*bottom.shape[:-2], below, bottom.shape[-1])
        ctx.rows = (top.shape[-2], tile.shape[-2])
        parts = [rows.contiguous(memory_format=layout) for rows in (top, tile, bottom) if rows.shape[-2]]
        return torch.cat(parts, dim=-2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        above, below, wraps, space = ctx.border
        start, rows = ctx.rows
        received_above, received_below = ctx.received
        top = grad[..., start - received_above : start, :]
        bottom = grad[..., start + rows : start + rows + received_below, :]
        exchange = _return_gradients(top, bottom, above, below, wraps, space)
        own = grad[..., start : start + rows, :].clone(memory_format=ctx.layout)
        first, last = exchange.wait()
        own[..., : first.shape[-2], :] += first
        own[..., rows - last.shape[-2] :, :] += last
        return own, None, None, None, None, None


def attach_halo(tile: Tensor, above: int, below: int, wraps: bool, space: Space, zeros: bool = False) -> Tensor:
    """Return the tile with the rows of its neighbours attached. Keeps nothing for the backward pass.

    One message to each neighbour, and one back for the gradients.

    Args:
        tile: This rank's rows [..., y, X].
        above: The number of rows from the rank above.
        below: The number of rows from the rank below.
        wraps: Whether the field is periodic.
        space: The space group.
        zeros: Whether to attach zeros beyond an end that is not periodic, instead of no rows.

    Returns:
        The rows [..., above + y + below, X], or fewer at an end.
    """
    wide: Tensor = _AttachHalo.apply(tile, above, below, wraps, zeros, space)
    return wide
