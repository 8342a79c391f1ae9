"""A Fourier neural operator as a denoiser. Knows no ranks, no files and no equations.

Spectral weights are stored as real pairs (..., 2): ZeRO fails on complex parameters or drops their imaginary part. Spectral
layers run in float32 with autocast off. Fields are padded before the transforms, since those treat them as periodic.
Shapes: x_BCYX fields or features, e_BE embedding of noise level and condition, spectra complex [B, C, ky, kx].
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pidscale.models.layers import NoiseEmbedding, norm_groups, run_block
from pidscale.precision import float32_island, float32_or_better

FNO_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 24, "modes": 8, "layers": 4, "embedding": 64, "padding": 0.25},
    "small": {"width": 48, "modes": 12, "layers": 4, "embedding": 256, "padding": 0.25},
    "medium": {"width": 96, "modes": 16, "layers": 6, "embedding": 512, "padding": 0.25},
    "large": {"width": 160, "modes": 24, "layers": 8, "embedding": 1024, "padding": 0.25},
    "xl": {"width": 256, "modes": 32, "layers": 8, "embedding": 1024, "padding": 0.25},
}


class SpectralConv(nn.Module):
    """Multiply each of the kept Fourier modes by its own complex matrix (Li et al. 2021, Fourier neural operator, eq. 5).

    Args:
        inputs: The channels of the input.
        outputs: The channels of the output.
        modes: The modes that are kept: `modes` along x, and as many positive and negative ones along y.
    """

    def __init__(self, inputs: int, outputs: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        scale = inputs**-0.5
        self.weight = nn.Parameter(scale * torch.randn(2, inputs, outputs, modes, modes, 2) * 0.5**0.5)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map [B, inputs, Y, X] to [B, outputs, Y, X], in float32 or float64."""
        with float32_island(x_BCYX.device):
            x = float32_or_better(x_BCYX)
            height, width = x.shape[-2:]
            rows = min(self.modes, height // 2)
            columns = min(self.modes, width // 2 + 1)
            weight = as_complex(self.weight)[:, :, :, :rows, :columns]
            spectrum = torch.fft.rfft2(x, norm="ortho")
            low = torch.einsum("bcyx,cdyx->bdyx", spectrum[:, :, :rows, :columns], weight[0])
            high = torch.einsum("bcyx,cdyx->bdyx", spectrum[:, :, -rows:, :columns], weight[1])
            middle = low.new_zeros(low.shape[0], low.shape[1], height - 2 * rows, columns)
            kept = functional.pad(torch.cat([low, middle, high], dim=2), (0, width // 2 + 1 - columns))
            return torch.fft.irfft2(kept, s=(height, width), norm="ortho")


def as_complex(pairs: Tensor) -> Tensor:
    """Return real pairs (..., 2) as complex numbers in float32 or float64, without a copy where their alignment allows it.

    ZeRO packs all weights into one buffer, in which a weight after an odd number of values begins at an odd offset.
    """
    packed = float32_or_better(pairs).contiguous()
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return torch.complex(*packed.unbind(-1))  # an offset is no value that a compiler can trace
    return torch.view_as_complex(packed.clone() if packed.storage_offset() % 2 else packed)


class Extend(nn.Module):
    """Add zeros below and to the right: a transform wraps fields around, and most fields are not periodic.

    Args:
        padding: The added points of each side, as a share of its points.
    """

    def __init__(self, padding: float) -> None:
        super().__init__()
        self.padding = padding

    def margin(self, points: int) -> int:
        """Return how many points are added to a side of `points` points."""
        return 2 * round(points * self.padding / 2)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Map [B, C, Y, X] to [B, C, Y + margin, X + margin]."""
        height, width = x_BCYX.shape[-2:]
        return functional.pad(x_BCYX, (0, self.margin(width), 0, self.margin(height)))


class Crop(nn.Module):
    """Remove what `Extend` added."""

    def forward(self, x_BCYX: Tensor, height: int, width: int) -> Tensor:
        """Return the first rows and columns, [B, C, height, width]."""
        return x_BCYX[:, :, :height, :width]


class FnoLayer(nn.Module):
    """Group norm, SiLU, the sum of a spectral and a 3 x 3 convolution, SiLU and pointwise mixing, plus the input.

    The embedding scales and shifts the norm.

    Args:
        width: The channels of input and output.
        modes: The modes of the spectral convolution.
        embedding: The width of the embedding.
    """

    def __init__(self, width: int, modes: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups(width), width)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.spectral = SpectralConv(width, width, modes)
        self.local = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_BCYX: Tensor, e_BE: Tensor) -> Tensor:
        """Map [B, width, Y, X] and [B, E] to [B, width, Y, X]."""
        scale, shift = self.modulation(e_BE)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(self.norm(x_BCYX) * (1 + scale) + shift)
        return x_BCYX + self.mix(functional.silu(self.spectral(h) + self.local(h)))


class Fno(nn.Module):
    """The raw network F(x, c_noise, condition) on fields [B, C, Y, X] of any Y and X.

    Set `recompute` on a built network to keep only the inputs of its layers for the backward pass (activation checkpointing).

    Args:
        channels: The channels of the joint field.
        width: The channels of features.
        modes: The modes of the spectral convolutions.
        layers: The number of layers.
        embedding: The width of the embedding of noise level and condition.
        padding: The margin of each side, as a share of its points.
        conditions: The number of PDE parameters of the condition.

    Attributes:
        after_crop: The names of the layers that see the field without its margin.
    """

    after_crop: ClassVar[tuple[str, ...]] = ("norm", "last")

    def __init__(
        self,
        channels: int,
        width: int,
        modes: int,
        layers: int,
        embedding: int,
        padding: float,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        self.multiple = 1
        self.recompute = False
        self.extend = Extend(padding)
        self.crop = Crop()
        self.embed = NoiseEmbedding(32, embedding, conditions)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.ModuleList(FnoLayer(width, modes, embedding) for _ in range(layers))
        self.norm = nn.GroupNorm(norm_groups(width), width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x_BCYX: Tensor, c_noise_B: Tensor, condition_BP: Tensor | None = None) -> Tensor:
        """Map [B, C, Y, X], [B] and [B, conditions] to [B, C, Y, X], in float32 or float64."""
        e_BE = self.embed(c_noise_B, condition_BP)
        h = self.first(self.extend(x_BCYX).contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            h = run_block(layer, self.recompute, h, e_BE)
        with float32_island(h.device):
            h = float32_or_better(self.crop(h, *x_BCYX.shape[-2:]))
            return self.last(functional.silu(self.norm(h)))
