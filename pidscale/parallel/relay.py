"""A tensor that is handed from rank to rank in the order of rows, and its gradient back. Knows no physics and no models.

Every rank but the first waits for its predecessor: what comes before a `to_below` on one rank happens before what follows
`from_above` on the next.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pidscale.parallel.mesh import Space


def _send(values: Tensor, peer: int, space: Space, kind: str) -> None:
    values = values.contiguous()
    dist.send(values, peer, group=space.group)
    space.traffic.sent(kind, 1, values.numel() * values.element_size())


def _receive(like: Tensor, peer: int, space: Space) -> Tensor:
    values = torch.empty_like(like, memory_format=torch.contiguous_format)
    with space.traffic.waiting():
        dist.recv(values, peer, group=space.group)
    return values


class _FromAbove(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, like: Tensor, space: Space) -> Tensor:
        ctx.space = space
        return _receive(like, space.above, space)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        _send(grad, ctx.space.above, ctx.space, "relay gradient")
        return None, None


class _ToBelow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, carrier: Tensor, space: Space) -> Tensor:
        ctx.space = space
        ctx.like = values.new_empty(1).expand(values.shape)
        _send(values, space.below, space, "relay")
        return carrier.view_as(carrier)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return _receive(ctx.like, ctx.space.below, ctx.space), grad, None


def from_above(like: Tensor, space: Space) -> Tensor:
    """Return the tensor that the rank above has given to `to_below`. One message back for its gradient.

    Args:
        like: Tensor of its shape and dtype. The gradient is handed back only if this one requires a gradient.
        space: The space group.

    Returns:
        The tensor.
    """
    values: Tensor = _FromAbove.apply(like, space)
    return values


def to_below(values: Tensor, carrier: Tensor, space: Space) -> Tensor:
    """Give a tensor to the rank below. One message, and one back for its gradient.

    Args:
        values: The tensor.
        carrier: A tensor that the result of this rank depends on.
        space: The space group.

    Returns:
        The carrier, through which the gradient of `values` arrives.
    """
    sent: Tensor = _ToBelow.apply(values, carrier, space)
    return sent
