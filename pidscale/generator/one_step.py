"""A generator that makes a field by one network call: the part of a student that searches are built on.

Needs torch and numpy only. Knows no files and no ranks. Shapes: eps_BCYX standard normal noise, params_BP parameters that
vary from sample to sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.solvers import one_step
from pidscale.generator.generator import Generator
from pidscale.precision import float32_island


@dataclass(frozen=True)
class OneStepGenerator(Generator):
    """A generator that maps noise to a field by one network call: d(eps) = D(sigma_max eps, sigma_max).

    The part of a student that tasks and refinement are built on; `student.Student` adds its users' methods.
    """

    @sheltered
    def generate(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Generate fields [B, C, Y, X] in units of the model from noise by one network call, without gradients."""
        with torch.no_grad():
            return self._call(self.conditioned_on(params_BP), eps_BCYX)

    def differentiable(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Generate fields from noise by one network call in float32, with gradients to noise and parameters.

        Args:
            eps_BCYX: Standard normal noise.
            params_BP: Varying parameters.

        Returns:
            Physical fields [B, C, Y, X] that satisfy the constraints but those that are steps.

        Raises:
            UserError: When torch.inference_mode() is on, which forbids gradients.
        """
        if torch.is_inference_mode_enabled():
            raise UserError("torch.inference_mode() is on: a search needs gradients; call it outside")
        return self.with_precision("fp32").fields_of(eps_BCYX, params_BP, smooth=True)

    def fields_of(self, eps_BCYX: Tensor, params_BP: Tensor, smooth: bool = False) -> Tensor:
        """Return what `differentiable` does, in any mode of torch and in this generator's precision.

        Args:
            eps_BCYX: Standard normal noise.
            params_BP: Varying parameters.
            smooth: Whether to leave out constraints that are steps, as `differentiable` does.

        Returns:
            Physical fields [B, C, Y, X].
        """
        with float32_island(self.device):
            network = self.conditioned_on(params_BP.cpu())  # in float64, which some devices do not have
            x = self._call(network, eps_BCYX)
        return self.to_physical(x, params_BP, smooth)

    def _call(self, network: Denoiser, eps_BCYX: Tensor) -> Tensor:
        """Return d(eps) in units of the model."""
        return one_step(network, eps_BCYX, self.noise.sigma_max, self.card.network_level)
