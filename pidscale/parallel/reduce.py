"""Sums, gathered rows and group statistics over a space group, with exact adjoints. Knows no physics and no models.

Shapes: x_BCyX this rank's rows of features.
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
    total = values.detach().clone(memory_format=torch.contiguous_format)
    packed = torch.view_as_real(total) if total.is_complex() else total
    with space.traffic.waiting():
        dist.all_reduce(packed, group=space.group)
    space.traffic.sent(kind, 1, packed.numel() * packed.element_size())
    return total


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, space: Space, kind: str) -> Tensor:
        ctx.space, ctx.kind = space, kind
        return _summed(values, space, kind)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _summed(grad, ctx.space, f"{ctx.kind} gradient"), None, None


def total(values: Tensor, space: Space, kind: str = "sum") -> Tensor:
    """The sum over the ranks of a space group, on each of them, real or complex. One all-reduce.

    The gradient is that of the sum of what all ranks do with it: one all-reduce too.
    """
    if space.size == 1:
        return values
    summed: Tensor = _Total.apply(values, space, kind)
    return summed


class _AllRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tile: Tensor, cut: Cut, space: Space) -> Tensor:
        ctx.cut, ctx.space = cut, space
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
        cut, space = ctx.cut, ctx.space
        parts = [grad[..., cut.rows(rank), :] for rank in range(space.size)]
        shape = tuple(parts[space.rank].shape)
        received = exchange(parts, [shape] * space.size, space, "gather gradient")
        return torch.stack(received).sum(dim=0), None, None


def all_rows(tile: Tensor, cut: Cut, space: Space) -> Tensor:
    """All rows of a field [..., Y, X] on each rank: for coarse ones. One all-gather, and one all-to-all for the gradients."""
    if space.size == 1:
        return tile
    rows: Tensor = _AllRows.apply(tile, cut, space)
    return rows


def _merged(mean: Tensor, variance: Tensor, rows: Cut, space: Space) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group [B, G] over all rows from those of each rank's. One all-gather of 2 B G numbers."""
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
    """Keeps its input and the statistics, as torch's own group norm does."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, rows: Cut, space: Space
    ) -> Tensor:
        batch, channels, height, width = x.shape
        # dense, as it asks; off the CPU its kernels know one layout alone
        dense = x.contiguous(memory_format=layout_of(x)) if x.device.type == "cpu" else x.contiguous()
        own, own_mean, own_rstd = torch.native_group_norm(
            dense, None, None, batch, channels, height * width, groups, eps
        )
        mean, variance = _merged(own_mean, own_rstd.square().reciprocal() - eps, rows, space)
        rstd = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups, ctx.space = groups, space
        ctx.count = channels // groups * rows.total * width
        # from the rank's own norm to that of all rows, in place
        scale = _by_channel(rstd / own_rstd, channels) * weight
        shift = bias + _by_channel((own_mean - mean) * rstd, channels) * weight
        return own.mul_(scale[:, :, None, None]).add_(shift[:, :, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        channels, groups = weight.numel(), ctx.groups
        along, level = (grad * x).sum(dim=(2, 3)), grad.sum(dim=(2, 3))  # [B, C] of this rank's rows
        packed = torch.stack([(part * weight).unflatten(1, (groups, -1)).sum(dim=2) for part in (along, level)])
        along_G, level_G = _summed(packed, ctx.space, "statistics gradient")
        slope = (level_G * mean - along_G) * rstd**3 / ctx.count
        offset = -slope * mean - level_G * rstd / ctx.count
        scale = (_by_channel(rstd, channels) * weight)[:, :, None, None]
        grad_x = torch.addcmul(
            _by_channel(offset, channels)[:, :, None, None], x, _by_channel(slope, channels)[:, :, None, None]
        )
        grad_x.addcmul_(grad, scale)
        grad_weight = ((along - level * _by_channel(mean, channels)) * _by_channel(rstd, channels)).sum(dim=0)
        return grad_x, grad_weight, level.sum(dim=0), None, None, None, None


def _by_channel(values_BG: Tensor, channels: int) -> Tensor:
    """[B, G] -> [B, C]."""
    return values_BG.repeat_interleave(channels // values_BG.shape[1], dim=1)


def group_norm(
    x_BCyX: Tensor, weight_C: Tensor, bias_C: Tensor, groups: int, eps: float, rows: Cut, space: Space
) -> Tensor:
    """Group norm with the statistics of all rows. One all-gather of 2 B G numbers, one all-reduce of as many for gradients.

    Gradients of weight and bias are this rank's part: they add up over ranks.
    """
    normed: Tensor = _GroupNorm.apply(x_BCyX, weight_C, bias_C, groups, eps, rows, space)
    return normed
