"""A Fourier neural operator as a denoiser. Knows no ranks, no files and no equations.

Spectral weights are stored as real pairs (..., 2): complex parameters fail or lose their imaginary part under ZeRO.
Spectral layers run in float32 with autocast off. Fields that are not periodic are padded before the transform.
Shapes: x_BCYX fields or features, spectra are [B, C, ky, kx] complex.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pidscale.models.layers import NoiseEmbedding, norm_groups, run
from pidscale.precision import float32_island, float32_or_better

FNO_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 24, "modes": 8, "layers": 4, "embedding": 64, "padding": 0.25},
    "small": {"width": 48, "modes": 12, "layers": 4, "embedding": 256, "padding": 0.25},
    "medium": {"width": 96, "modes": 16, "layers": 6, "embedding": 512, "padding": 0.25},
    "large": {"width": 160, "modes": 24, "layers": 8, "embedding": 1024, "padding": 0.25},
    "xl": {"width": 256, "modes": 32, "layers": 8, "embedding": 1024, "padding": 0.25},
}


class SpectralConv(nn.Module):
    """Multiply the kept Fourier modes by a complex matrix each (Li et al., Fourier Neural Operator, 2021, eq. 5)."""

    def __init__(self, inputs: int, outputs: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        scale = inputs**-0.5
        self.weight = nn.Parameter(scale * torch.randn(2, inputs, outputs, modes, modes, 2) * 0.5**0.5)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """[B, inputs, Y, X] -> float32 [B, outputs, Y, X]."""
        with float32_island(x_BCYX.device):
            x = float32_or_better(x_BCYX)
            height, width = x.shape[-2:]
            rows, columns = min(self.modes, height // 2), min(self.modes, width // 2 + 1)
            weight = as_complex(self.weight)[:, :, :, :rows, :columns]
            spectrum = torch.fft.rfft2(x, norm="ortho")
            low = torch.einsum("bcyx,cdyx->bdyx", spectrum[:, :, :rows, :columns], weight[0])
            high = torch.einsum("bcyx,cdyx->bdyx", spectrum[:, :, -rows:, :columns], weight[1])
            middle = low.new_zeros(low.shape[0], low.shape[1], height - 2 * rows, columns)
            kept = functional.pad(torch.cat([low, middle, high], dim=2), (0, width // 2 + 1 - columns))
            return torch.fft.irfft2(kept, s=(height, width), norm="ortho")


def as_complex(pairs: Tensor) -> Tensor:
    """Real pairs (..., 2) as complex numbers, in float32 or better, without a copy where they lie as torch wants them.

    ZeRO lays all weights into one buffer, where those after an odd number of others begin at an odd place.
    """
    packed = float32_or_better(pairs).contiguous()
    return torch.view_as_complex(packed.clone() if packed.storage_offset() % 2 else packed)


class Extend(nn.Module):
    """Add zeros below and to the right, a share `padding` of each side: fields that are not periodic need room to wrap."""

    def __init__(self, padding: float) -> None:
        super().__init__()
        self.padding = padding

    def margin(self, points: int) -> int:
        """Points that are added to a side of so many."""
        return 2 * round(points * self.padding / 2)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """[B, C, Y, X] -> [B, C, Y + margin, X + margin]."""
        height, width = x_BCYX.shape[-2:]
        return functional.pad(x_BCYX, (0, self.margin(width), 0, self.margin(height)))


class Crop(nn.Module):
    """Take away what `Extend` added."""

    def forward(self, x_BCYX: Tensor, height: int, width: int) -> Tensor:
        """The first rows and columns, [B, C, height, width]."""
        return x_BCYX[:, :, :height, :width]


class FnoLayer(nn.Module):
    """norm, scaled and shifted by the embedding, SiLU, spectral and 3 x 3 convolution, pointwise mixing; plus the input."""

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
        """[B, width, Y, X] -> the same."""
        scale, shift = self.modulation(e_BE)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(self.norm(x_BCYX) * (1 + scale) + shift)
        return x_BCYX + self.mix(functional.silu(self.spectral(h) + self.local(h)))


class Fno(nn.Module):
    """Raw network F(x, c_noise) on [B, C, Y, X], any Y and X. `recompute`: as that of a UNet, layer by layer."""

    after_crop: ClassVar[tuple[str, ...]] = ("norm", "last")  # layers that see the field without its margin

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
        self.multiple, self.recompute = 1, False
        self.extend, self.crop = Extend(padding), Crop()
        self.embed = NoiseEmbedding(32, embedding, conditions)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.ModuleList(FnoLayer(width, modes, embedding) for _ in range(layers))
        self.norm = nn.GroupNorm(norm_groups(width), width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x_BCYX: Tensor, c_noise_B: Tensor, condition_BP: Tensor | None = None) -> Tensor:
        """[B, C, Y, X], [B] and [B, conditions] -> float32 [B, C, Y, X]."""
        e_BE = self.embed(c_noise_B, condition_BP)
        h = self.first(self.extend(x_BCYX).contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            h = run(layer, self.recompute, h, e_BE)
        with float32_island(h.device):
            h = float32_or_better(self.crop(h, *x_BCYX.shape[-2:]))
            return self.last(functional.silu(self.norm(h)))
