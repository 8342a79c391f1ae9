"""Building blocks shared by the networks. Knows no ranks, no files and no equations.

Shapes: x_BCYX features, e_BE embedding of the noise level and of the condition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pidscale.precision import float32_or_better


def norm_groups(channels: int) -> int:
    """Return the number of groups of a group norm: about 8 channels a group, at most 32 groups."""
    return min(32, max(1, channels // 8))


def run_block(block: nn.Module, recompute: bool, *inputs: Tensor) -> Tensor:
    """Return the output of a block.

    Args:
        block: The block.
        recompute: Keep only the block's inputs for the backward pass, which then computes the block again (activation
            checkpointing).
        *inputs: The block's inputs.

    Returns:
        The block's output.
    """
    if recompute and torch.is_grad_enabled():
        checkpointed: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return checkpointed
    output: Tensor = block(*inputs)
    return output


class NoiseEmbedding(nn.Module):
    """The embedding of noise level and condition: Fourier features of c_noise = ln(sigma) / 4, then two linear layers.

    Args:
        features: The number of Fourier features.
        embedding: The width E of the embedding.
        conditions: The number of PDE parameters, each in [-1, 1], that are embedded together with the noise level.
    """

    def __init__(self, features: int, embedding: int, conditions: int = 0) -> None:
        super().__init__()
        half = features // 2
        # on the CPU whatever the default device: a network on the meta device can then still compute its frequencies
        ramp = torch.linspace(0.0, math.log(64.0), half, dtype=torch.float32, device="cpu")
        self.register_buffer("frequencies", torch.exp(ramp), persistent=False)
        self.first = nn.Linear(2 * half, embedding)
        self.condition = nn.Linear(conditions, embedding, bias=False) if conditions else None
        self.second = nn.Linear(embedding, embedding)

    def forward(self, c_noise_B: Tensor, condition_BP: Tensor | None = None) -> Tensor:
        """Return the embedding.

        Args:
            c_noise_B: The scaled noise levels, [B].
            condition_BP: The condition, [B, conditions].

        Returns:
            The embedding [B, E].

        Raises:
            ValueError: The condition is missing or has another number of parameters.
        """
        angles = float32_or_better(c_noise_B)[:, None] * self.get_buffer("frequencies")[None, :]
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        hidden = self.first(features)
        if self.condition is not None:
            if condition_BP is None or condition_BP.shape[-1] != self.condition.in_features:
                found = "none" if condition_BP is None else condition_BP.shape[-1]
                raise ValueError(
                    f"condition: this network takes {self.condition.in_features} PDE parameters a sample, found {found}"
                )
            hidden = hidden + self.condition(condition_BP.to(hidden.dtype))
        return functional.silu(self.second(functional.silu(hidden)))


class ResidualBlock(nn.Module):
    """Group norm, SiLU and convolution, twice, plus the input; the embedding scales and shifts the second norm.

    Args:
        inputs: The channels of the input.
        outputs: The channels of the output.
        embedding: The width of the embedding.
    """

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
        """Map [B, inputs, Y, X] and [B, E] to [B, outputs, Y, X]."""
        h = self.conv1(functional.silu(self.norm1(x_BCYX)))
        scale, shift = self.modulation(e_BE)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(functional.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x_BCYX) + h


class Attention(nn.Module):
    """Self-attention over all points of a coarse level, plus the input.

    Args:
        channels: The channels of input and output.
        head_width: The channels a head, about.

    Raises:
        ValueError: The channels do not divide into the heads.
    """

    def __init__(self, channels: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        if channels % self.heads:
            raise ValueError(f"attention over {channels} channels: they do not divide into {self.heads} heads")
        self.norm = nn.GroupNorm(norm_groups(channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map [B, C, Y, X] to the same shape."""
        batch, channels, height, width = x_BCYX.shape
        qkv = self.qkv(self.norm(x_BCYX)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).contiguous().unbind(dim=1)  # contiguous, or all products might be kept
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x_BCYX + self.out(mixed.transpose(-1, -2).reshape(batch, channels, height, width))


class Down(nn.Module):
    """Halve the resolution by a strided convolution.

    Args:
        inputs: The channels of the input.
        outputs: The channels of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map [B, inputs, Y, X] to [B, outputs, Y / 2, X / 2]."""
        return self.conv(x_BCYX)


class Up(nn.Module):
    """Double the resolution: mix channels pointwise, then repeat every point; the next block's convolution smooths.

    Args:
        inputs: The channels of the input.
        outputs: The channels of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map [B, inputs, Y, X] to [B, outputs, 2 Y, 2 X]."""
        return functional.interpolate(self.conv(x_BCYX), scale_factor=2.0, mode="nearest")
