"""A network that predicts the solution of given inputs in one call. It is no generator of fields: it takes no noise.

Needs torch and numpy only. Knows no files and no ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.diffusion.denoiser import Denoiser
from pidscale.generator.generator import Generator
from pidscale.pde.base import solution_mask


def predicted(denoiser: Denoiser, x_BCYX: Tensor, unknown_CYX: Tensor, level: float) -> Tensor:
    """Return what a network makes of the inputs of fields.

    Args:
        denoiser: The network.
        x_BCYX: Fields in units of the model; values of the solution are not looked at.
        unknown_CYX: True where values are solution.
        level: Noise level that the network is conditioned on.

    Returns:
        Fields [B, C, Y, X] in units of the model, of which the solution counts.
    """
    return denoiser(x_BCYX.masked_fill(unknown_CYX, 0.0), x_BCYX.new_full((len(x_BCYX),), level))


@dataclass(frozen=True)
class Regression(Generator):
    """A network that was trained by regression, for forward problems."""

    def generate(self, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
        """Raise UserError: it makes no samples."""
        raise UserError("a regression makes no samples; it answers forward problems")

    @sheltered
    def predict(self, fields_NCYX: Tensor, params_NP: Tensor) -> Tensor:
        """Predict solutions, without gradients.

        Args:
            fields_NCYX: Joint physical fields, whose inputs are given.
            params_NP: Varying parameters.

        Returns:
            Physical fields [N, C, Y, X]: the inputs as they are given, and the solution behind constraints and head.
        """
        unknown = solution_mask(self.pde, self.grid).to(self.device)
        given = fields_NCYX.to(self.device)
        with torch.no_grad():
            x = self.normaliser.encode(given)
            found = predicted(self.conditioned_on(params_NP), x, unknown, self.noise.sigma_data)
        return self.to_physical(torch.where(unknown, found, x), params_NP)
