"""The denoiser that is exact for a finite set of truths: their mean, weighted by how likely each made the noisy field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.diffusion.normaliser import Normaliser
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, truths

SIGMA_DATA = 0.5


@dataclass(frozen=True)
class ExactMean:
    """E[x0 | x0 + sigma eps] where x0 is one of N truths, each as likely as another.

    A mean of fields that obey the equation obeys its linear terms and edge values, and nothing else.

    Attributes:
        pde: The equation.
        grid: Grid of the truths.
        truth_NCYX: The truths in units of the model, float64.
        normaliser: Conversion between these and physical units.
    """

    pde: Pde
    grid: Grid
    truth_NCYX: Tensor
    normaliser: Normaliser

    def weights(self, x_BCYX: Tensor, sigma: float) -> Tensor:
        """Return the probability of each truth given noisy fields, [B, N]: a softmax of -|x - x0|^2 / (2 sigma^2)."""
        away = torch.cdist(x_BCYX.flatten(1), self.truth_NCYX.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        return torch.softmax(-away.square() / (2 * sigma**2), dim=1)

    def denoise(self, x_BCYX: Tensor, sigma_B: Tensor, network_level_B: Tensor | None = None, /) -> Tensor:
        """Return the mean given noisy fields, all at the level of the first: a `Denoiser`."""
        weights = self.weights(x_BCYX, float(sigma_B[0]))
        return (weights @ self.truth_NCYX.flatten(1)).reshape(x_BCYX.shape)

    def physical(self, x_BCYX: Tensor) -> Tensor:
        """Return fields in physical units."""
        return self.normaliser.decode(x_BCYX)


def exact_mean(pde: Pde, points: int, seed: int, counters: Sequence[int]) -> ExactMean:
    """Return the exact denoiser of the truths of these counters."""
    grid = pde.grid(points)
    fields = truths(pde, seed, counters, grid).fields
    parts = fields.transpose(0, 1).flatten(1)
    mean = tuple(parts.mean(dim=1).tolist())
    normaliser = Normaliser(mean, tuple(parts.std(dim=1).tolist()), SIGMA_DATA)
    return ExactMean(pde, grid, normaliser.encode(fields), normaliser)


def averaged(weights_BN: Tensor) -> Tensor:
    """Return over how many truths each mean is taken, [B]: 1 / sum w^2."""
    return 1 / weights_BN.square().sum(dim=1)
