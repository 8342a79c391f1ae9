"""Between physical units and the units of the model. Knows no equations, no files and no ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.precision import float32_or_better

LARGEST = 1e30  # of fields that float32 holds, and their squares float64


@dataclass(frozen=True)
class Normaliser:
    """Per-channel mean and standard deviation of the training data; the model sees standard deviation sigma_data."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"normaliser: {len(self.mean)} means and {len(self.std)} standard deviations")
        if not all(abs(m) < LARGEST for m in self.mean) or not all(0 < s < LARGEST for s in self.std):
            raise ValueError(
                f"normaliser: mean {self.mean} and std {self.std}: expected numbers below {LARGEST:g}, std above 0"
            )

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
        return mean, std / self.sigma_data

    def encode(self, physical_BCYX: Tensor) -> Tensor:
        """Physical units to the units of the model."""
        mean, scale = self._columns(physical_BCYX)
        return (physical_BCYX - mean) / scale

    def decode(self, x_BCYX: Tensor) -> Tensor:
        """Units of the model to physical units, float32 or better."""
        x = float32_or_better(x_BCYX)
        mean, scale = self._columns(x)
        return x * scale + mean
