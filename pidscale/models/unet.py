"""A UNet of residual blocks with attention at its coarse levels. Knows no ranks, no files and no equations.

Shapes: x_BCYX fields or features, e_BE embedding of noise level and condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pidscale.models.layers import Attention, Down, NoiseEmbedding, ResidualBlock, Up, norm_groups, run_block
from pidscale.precision import float32_island, float32_or_better

# about 0.4 M, 5 M, 38 M, 340 M and 1.2 B parameters for two channels
UNET_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 16, "multipliers": [1, 2, 4], "blocks": 1, "attention_levels": 1, "embedding": 64, "patch": 1},
    "small": {"width": 64, "multipliers": [1, 2, 2], "blocks": 2, "attention_levels": 1, "embedding": 256, "patch": 1},
    "medium": {
        "width": 128,
        "multipliers": [1, 2, 2, 2],
        "blocks": 3,
        "attention_levels": 2,
        "embedding": 512,
        "patch": 1,
    },
    "large": {
        "width": 256,
        "multipliers": [1, 2, 3, 4],
        "blocks": 3,
        "attention_levels": 2,
        "embedding": 1024,
        "patch": 1,
    },
    "xl": {
        "width": 384,
        "multipliers": [1, 2, 4, 4],
        "blocks": 4,
        "attention_levels": 2,
        "embedding": 1536,
        "patch": 1,
    },
}


class _Stage(nn.Module):
    """A residual block, followed by attention at coarse levels."""

    def __init__(self, inputs: int, outputs: int, embedding: int, attends: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, embedding)
        self.attention = Attention(outputs) if attends else nn.Identity()

    def forward(self, x_BCYX: Tensor, e_BE: Tensor) -> Tensor:
        return self.attention(self.block(x_BCYX, e_BE))


def _stages(level: nn.Module) -> Iterable[nn.Module]:
    """Return the stages of one level; this only adds their type."""
    return level.children()


class UNet(nn.Module):
    """The raw network F(x, c_noise, condition) on fields [B, C, Y, X] whose Y and X are multiples of `multiple`.

    Set `recompute` on a built network to keep only the inputs of its stages for the backward pass (activation checkpointing).

    Args:
        channels: The channels of the joint field.
        width: The channels of features at the finest level.
        multipliers: The features of each level as multiples of `width`, from fine to coarse.
        blocks: The residual blocks of each level, in the encoder and in the decoder.
        attention_levels: The number of coarse levels with attention.
        embedding: The width of the embedding of noise level and condition.
        patch: Points a side that are folded into channels before the first convolution and unfolded after the last one.
        conditions: The number of PDE parameters of the condition.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention_levels: int,
        embedding: int,
        patch: int = 1,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        widths = [width * m for m in multipliers]
        levels = len(widths)
        self.multiple = patch * 2 ** (levels - 1)
        self.patch = patch
        self.recompute = False
        folded = channels * patch**2
        self.embed = NoiseEmbedding(32, embedding, conditions)
        self.first = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, wide in enumerate(widths):
            attends = level >= levels - attention_levels
            self.encoder.append(nn.ModuleList(_Stage(wide, wide, embedding, attends) for _ in range(blocks)))
            inputs = [2 * wide] + [wide] * (blocks - 1)
            self.decoder.append(nn.ModuleList(_Stage(i, wide, embedding, attends) for i in inputs))
            if level + 1 < levels:
                self.down.append(Down(wide, widths[level + 1]))
                self.up.append(Up(widths[level + 1], wide))
        self.middle = _Stage(widths[-1], widths[-1], embedding, attention_levels > 0)
        self.norm = nn.GroupNorm(norm_groups(width), widths[0])
        self.last = nn.Conv2d(widths[0], folded, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x_BCYX: Tensor, c_noise_B: Tensor, condition_BP: Tensor | None = None) -> Tensor:
        """Map [B, C, Y, X], [B] and [B, conditions] to [B, C, Y, X], in float32 or float64."""
        e_BE = self.embed(c_noise_B, condition_BP)
        x = functional.pixel_unshuffle(x_BCYX, self.patch) if self.patch > 1 else x_BCYX
        h = self.first(x.contiguous(memory_format=torch.channels_last))
        kept: list[Tensor] = []
        for level, stages in enumerate(self.encoder):
            for stage in _stages(stages):
                h = run_block(stage, self.recompute, h, e_BE)
            kept.append(h)
            if level < len(self.down):
                h = self.down[level](h)
        h = run_block(self.middle, self.recompute, h, e_BE)
        for level in reversed(range(len(self.decoder))):
            h = torch.cat([h, kept[level]], dim=1)
            for stage in _stages(self.decoder[level]):
                h = run_block(stage, self.recompute, h, e_BE)
            if level > 0:
                h = self.up[level - 1](h)
        with float32_island(h.device):
            out = self.last(functional.silu(self.norm(float32_or_better(h))))
            return functional.pixel_shuffle(out, self.patch) if self.patch > 1 else out
