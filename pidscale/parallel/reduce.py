"""Sums, gathered rows and group norms over a space group, with exact gradients. Knows no physics and no models.

Shapes: x_BCyX this rank's rows of features; tiles are [..., y, X], the rows y of one rank of all rows Y.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from pidscale.parallel.mesh import Space
from pidscale.parallel.split import Cut, exchange, layout_of


def _summed(values: Tensor, space: Space, kind: str) -> Tensor:
    """Return the sum over the group without gradients; complex values travel as pairs."""
    total = values.detach().clone(memory_format=torch.contiguous_format)
    packed = torch.view_as_real(total) if total.is_complex() else total
    with space.traffic.waiting():
        dist.all_reduce(packed, group=space.group)
    space.traffic.sent(kind, 1, packed.numel() * packed.element_size())
    return total


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, space: Space, kind: str) -> Tensor:
        ctx.space = space
        ctx.kind = kind
        return _summed(values, space, kind)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _summed(grad, ctx.space, f"{ctx.kind} gradient"), None, None


def total(values: Tensor, space: Space, kind: str = "sum") -> Tensor:
    """Return the sum over the ranks of a space group on each of them. One all-reduce, and one for the gradient.

    The gradient is the sum of the gradients of all ranks, since each of them uses the sum.

    Args:
        values: The part of this rank, real or complex, of one shape on all ranks.
        space: The space group.
        kind: The kind of exchange under which `space.traffic` counts it.

    Returns:
        The sum, of the shape of `values`.
    """
    if space.size == 1:
        return values
    summed: Tensor = _Total.apply(values, space, kind)
    return summed


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tile: Tensor, cut: Cut, space: Space) -> Tensor:
        ctx.cut = cut
        ctx.space = space
        most = max(cut.sizes)
        padded = tile.new_zeros(*tile.shape[:-2], most, tile.shape[-1])
        padded[..., : tile.shape[-2], :] = tile
        parts = [torch.empty_like(padded) for _ in cut.sizes]
        with space.traffic.waiting():
            dist.all_gather(parts, padded, group=space.group)
        space.traffic.sent("gather", 1, padded.numel() * padded.element_size())
        return torch.cat([part[..., :rows, :] for part, rows in zip(parts, cut.sizes, strict=True)], dim=-2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cut = ctx.cut
        space = ctx.space
        parts = [grad[..., cut.rows(rank), :] for rank in range(space.size)]
        shape = tuple(parts[space.rank].shape)
        received = exchange(parts, [shape] * space.size, space, "gather gradient")
        return torch.stack(received).sum(dim=0), None, None


def gather_rows(tile: Tensor, cut: Cut, space: Space) -> Tensor:
    """Return all rows of a coarse field on each rank. One all-gather, and one all-to-all for the gradient.

    Args:
        tile: This rank's rows [..., y, X].
        cut: The rows of every rank.
        space: The space group that shares the field.

    Returns:
        The whole field [..., Y, X].
    """
    if space.size == 1:
        return tile
    rows: Tensor = _GatherRows.apply(tile, cut, space)
    return rows


def _merged(mean: Tensor, variance: Tensor, rows: Cut, space: Space) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of each group over all rows from those over each rank's rows, [B, G].

    One all-gather of 2 B G numbers.
    """
    own = torch.stack([mean, variance])
    parts = [torch.empty_like(own) for _ in range(space.size)]
    with space.traffic.waiting():
        dist.all_gather(parts, own, group=space.group)
    space.traffic.sent("statistics", 1, own.numel() * own.element_size())
    share = torch.tensor(rows.sizes, dtype=own.dtype, device=own.device) / rows.total
    means, variances = torch.stack(parts, dim=1)
    mean = torch.einsum("r,rbg->bg", share, means)
    return mean, torch.einsum("r,rbg->bg", share, variances + (means - mean).square())


class _GroupNorm(torch.autograd.Function):
    """Keeps its input and its statistics for the backward pass, as torch's group norm does."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, rows: Cut, space: Space
    ) -> Tensor:
        batch, channels, height, width = x.shape
        # torch.native_group_norm takes dense inputs; kernels of other devices than the CPU support contiguous ones only
        dense = x.contiguous(memory_format=layout_of(x)) if x.device.type == "cpu" else x.contiguous()
        own, own_mean, own_rstd = torch.native_group_norm(
            dense, None, None, batch, channels, height * width, groups, eps
        )
        mean, variance = _merged(own_mean, own_rstd.square().reciprocal() - eps, rows, space)
        rstd = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        ctx.space = space
        ctx.count = channels // groups * rows.total * width
        # convert the normalisation by this rank's statistics into that by all rows' statistics, in place
        scale = _by_channel(rstd / own_rstd, channels) * weight
        shift = bias + _by_channel((own_mean - mean) * rstd, channels) * weight
        return own.mul_(scale[:, :, None, None]).add_(shift[:, :, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        channels = weight.numel()
        grad_x_sum = (grad * x).sum(dim=(2, 3))  # [B, C] over this rank's rows
        grad_sum = grad.sum(dim=(2, 3))
        weighted = [(part * weight).unflatten(1, (ctx.groups, -1)).sum(dim=2) for part in (grad_x_sum, grad_sum)]
        grad_x_sum_G, grad_sum_G = _summed(torch.stack(weighted), ctx.space, "statistics gradient")
        slope = (grad_sum_G * mean - grad_x_sum_G) * rstd**3 / ctx.count
        offset = -slope * mean - grad_sum_G * rstd / ctx.count
        scale = (_by_channel(rstd, channels) * weight)[:, :, None, None]
        grad_x = torch.addcmul(
            _by_channel(offset, channels)[:, :, None, None], x, _by_channel(slope, channels)[:, :, None, None]
        )
        grad_x.addcmul_(grad, scale)
        centred = grad_x_sum - grad_sum * _by_channel(mean, channels)
        grad_weight = (centred * _by_channel(rstd, channels)).sum(dim=0)
        return grad_x, grad_weight, grad_sum.sum(dim=0), None, None, None, None


def _by_channel(values_BG: Tensor, channels: int) -> Tensor:
    """Repeat the value of each group for its channels: [B, G] to [B, C]."""
    return values_BG.repeat_interleave(channels // values_BG.shape[1], dim=1)


def group_norm(
    x_BCyX: Tensor, weight_C: Tensor, bias_C: Tensor, groups: int, eps: float, rows: Cut, space: Space
) -> Tensor:
    """Return the group norm of a field with the statistics of all its rows.

    One all-gather of 2 B G numbers, and one all-reduce of as many for the gradient. The gradients of weight and bias are the
    shares of this rank: those of all ranks add up to the gradient.

    Args:
        x_BCyX: This rank's rows [B, C, y, X].
        weight_C: The scale of each channel.
        bias_C: The shift of each channel.
        groups: The number of groups G.
        eps: What is added to the variance.
        rows: The rows of every rank.
        space: The space group that shares the field.

    Returns:
        The normalised rows [B, C, y, X].
    """
    normed: Tensor = _GroupNorm.apply(x_BCyX, weight_C, bias_C, groups, eps, rows, space)
    return normed
