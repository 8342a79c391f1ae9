"""Conversion between physical units and the units of the model. Knows no equations, no files and no ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.precision import float32_or_better

LARGEST = 1e30  # of the means and deviations: float32 holds such fields, float64 their squares


@dataclass(frozen=True)
class Normaliser:
    """Mean and standard deviation of each channel over the training data.

    Attributes:
        mean: The mean of each channel in physical units.
        std: The standard deviation of each channel in physical units.
        sigma_data: The standard deviation of every channel in units of the model.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"normaliser: {len(self.mean)} means and {len(self.std)} standard deviations; expected as many of each"
            )
        if not all(abs(m) < LARGEST for m in self.mean) or not all(0 < s < LARGEST for s in self.std):
            raise ValueError(
                f"normaliser: mean {self.mean} and std {self.std}: expected numbers below {LARGEST:g}, and std above 0"
            )

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means and the physical size of one unit of the model, [1, C, 1, 1]."""
        mean = torch.tensor(self.mean, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
        return mean, std / self.sigma_data

    def encode(self, physical_BCYX: Tensor) -> Tensor:
        """Convert fields [B, C, Y, X] from physical units to units of the model."""
        mean, scale = self._columns(physical_BCYX)
        return (physical_BCYX - mean) / scale

    def decode(self, x_BCYX: Tensor) -> Tensor:
        """Convert fields [B, C, Y, X] from units of the model to physical units, in float32 or float64."""
        x = float32_or_better(x_BCYX)
        mean, scale = self._columns(x)
        return x * scale + mean
