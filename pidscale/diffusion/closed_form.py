"""Gaussian data of independent modes, for which the denoiser, the flow and the posterior are known exactly.

Results of solvers, objectives and methods are compared with it in float64, without the error of a network. Knows no networks,
ranks, files or equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianModes:
    """Fields x0 whose values are independent and normal, with mean 0 and standard deviations of their own.

    Everything that diffusion does to such data multiplies each value by a factor. For data with another covariance, take the
    coefficients of its eigenvectors as the field.

    Example::

        modes = GaussianModes(torch.tensor([0.05, 0.5, 2.0, 8.0]).double().reshape(1, 1, 1, 4))
        fields = integrate(modes.denoise, eps, EdmNoise().levels(800))  # near 80 * modes.flow(80.0, 0.0) * eps

    Attributes:
        std: Standard deviations, float64, of a shape that broadcasts to [B, C, Y, X].
    """

    std: Tensor

    def denoise(self, x_BCYX: Tensor, sigma_B: Tensor, network_level_B: Tensor | None = None, /) -> Tensor:
        """Return the mean of x0 given x = x0 + sigma eps: the denoiser of least mean square error.

        Args:
            x_BCYX: Noisy fields.
            sigma_B: The noise level of each.
            network_level_B: Not used: the exact denoiser is conditioned on nothing.

        Returns:
            std^2 / (std^2 + sigma^2) x, float64 [B, C, Y, X]: the minimiser of Karras et al. 2022, eq. 2.
        """
        sigma = sigma_B.double().reshape(-1, 1, 1, 1)
        return self.std**2 / (self.std**2 + sigma**2) * x_BCYX

    def flow(self, start: float, end: float) -> Tensor:
        """Return the factors by which the probability-flow ODE takes fields from one noise level to another.

        Args:
            start: The noise level of the given fields.
            end: The noise level of the fields that they become.

        Returns:
            sqrt((std^2 + end^2) / (std^2 + start^2)), of the shape of `std`: the solution of
            dx / dsigma = (x - denoise(x, sigma)) / sigma.
        """
        return ((self.std**2 + end**2) / (self.std**2 + start**2)).sqrt()

    def posterior(self, values: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of x0 given noisy observations of its values.

        Args:
            values: Observed values y = x0 + sigma n, n standard normal; any finite number where nothing is known.
            sigma: Their standard deviations, of a shape that broadcasts to that of `values`; infinite where nothing is known.

        Returns:
            Two tensors, float64: std^2 / (std^2 + sigma^2) y, and the standard deviations of values that are independent.
        """
        gain = self.std**2 / (self.std**2 + sigma.double() ** 2)
        return gain * values, self.std * torch.sqrt(1 - gain)
