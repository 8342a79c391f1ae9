"""Building blocks shared by the networks. Knows no ranks, no files and no equations.

Shapes: x_BCYX features, e_BE embedding of the noise level and of the parameters that vary from sample to sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pidscale.precision import float32_or_better


def norm_groups(channels: int) -> int:
    """Groups of a group norm: 8 channels a group where that divides, at most 32 groups."""
    return min(32, max(1, channels // 8))


def run(block: nn.Module, recompute: bool, *inputs: Tensor) -> Tensor:
    """The output of a block. recompute: keep its inputs alone, and compute what its backward pass needs once more then."""
    if recompute and torch.is_grad_enabled():
        again: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return again
    output: Tensor = block(*inputs)
    return output


class NoiseEmbedding(nn.Module):
    """Fourier features of c_noise = ln(sigma) / 4, then two linear layers: [B] -> [B, E].

    conditions: parameters of each sample, within [-1, 1], that are embedded with it.
    """

    def __init__(self, features: int, embedding: int, conditions: int = 0) -> None:
        super().__init__()
        half = features // 2
        # of the CPU whatever the default, for a network that is built of shapes alone has none else to tell it from
        ramp = torch.linspace(0.0, math.log(64.0), half, dtype=torch.float32, device="cpu")
        self.register_buffer("frequencies", torch.exp(ramp), persistent=False)
        self.first = nn.Linear(2 * half, embedding)
        self.condition = nn.Linear(conditions, embedding, bias=False) if conditions else None
        self.second = nn.Linear(embedding, embedding)

    def forward(self, c_noise_B: Tensor, condition_BP: Tensor | None = None) -> Tensor:
        """Embed noise levels and parameters [B, conditions]. Raises ValueError where the latter are missing."""
        angles = float32_or_better(c_noise_B)[:, None] * self.get_buffer("frequencies")[None, :]
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        hidden = self.first(features)
        if self.condition is not None:
            if condition_BP is None or condition_BP.shape[-1] != self.condition.in_features:
                raise ValueError(f"this network takes {self.condition.in_features} parameters of each sample")
            hidden = hidden + self.condition(condition_BP.to(hidden.dtype))
        return functional.silu(self.second(functional.silu(hidden)))


class ResidualBlock(nn.Module):
    """norm, SiLU, convolution, twice, the second norm scaled and shifted by the embedding; plus the input."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups(inputs), inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.norm2 = nn.GroupNorm(norm_groups(outputs), outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_BCYX: Tensor, e_BE: Tensor) -> Tensor:
        """[B, inputs, Y, X] -> [B, outputs, Y, X]."""
        h = self.conv1(functional.silu(self.norm1(x_BCYX)))
        scale, shift = self.modulation(e_BE)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(functional.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x_BCYX) + h


class Attention(nn.Module):
    """Self-attention over all points of a coarse level; plus the input."""

    def __init__(self, channels: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        if channels % self.heads:
            raise ValueError(f"attention over {channels} channels: they do not divide among {self.heads} heads")
        self.norm = nn.GroupNorm(norm_groups(channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """[B, C, Y, X] -> the same."""
        batch, channels, height, width = x_BCYX.shape
        qkv = self.qkv(self.norm(x_BCYX)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).contiguous().unbind(dim=1)  # packed: else all products of them might be kept
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x_BCYX + self.out(mixed.transpose(-1, -2).reshape(batch, channels, height, width))


class Down(nn.Module):
    """Halve the resolution by a strided convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """[B, inputs, Y, X] -> [B, outputs, Y / 2, X / 2]."""
        return self.conv(x_BCYX)


class Up(nn.Module):
    """Double the resolution: mix channels pointwise, then repeat every point; the next block's convolution smooths."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """[B, inputs, Y, X] -> [B, outputs, 2 Y, 2 X]."""
        return functional.interpolate(self.conv(x_BCYX), scale_factor=2.0, mode="nearest")
