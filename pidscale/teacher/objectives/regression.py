"""Regression: the solution from the inputs, without noise and in one call. The rival that is no generator. Knows no ranks.

    L = mean |(D(x with a null solution, sigma_data) - x) on the solution channels|^2 / sigma_data^2

The network is that of a teacher, UNet or FNO; its level is fixed. The result answers forward problems only (Li et al.,
Fourier neural operator for parametric partial differential equations, ICLR 2021, with an FNO).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pidscale.config import ObjectiveSettings
from pidscale.diffusion.denoiser import Denoiser
from pidscale.generator.card import Kind
from pidscale.generator.regression import predicted
from pidscale.pde.base import solution_mask
from pidscale.teacher.objectives.base import MicroBatch, TeacherObjective


@dataclass(frozen=True)
class RegressionSettings(ObjectiveSettings):
    """Settings `teacher.objective` of regression.

    Attributes:
        name: `regression`.
    """

    name: str = "regression"


@dataclass(frozen=True)
class Regression(TeacherObjective[RegressionSettings]):
    """Regression objective."""

    settings_class = RegressionSettings
    parts = ("regression",)
    kind = Kind.REGRESSION

    def losses(self, denoiser: Denoiser, batch: MicroBatch) -> tuple[Tensor, ...]:
        """Return the mean squared error of the solution, relative to the variance of the data."""
        unknown = solution_mask(self.problem.pde, self.problem.grid)
        mask = self.window.crop(unknown).to(batch.x_BCYX.device)
        found = predicted(denoiser, batch.x_BCYX, mask, self.noise.sigma_data)
        errors = ((found - batch.x_BCYX) * mask).square().flatten(1).sum(dim=1)
        return (errors / (int(unknown.sum()) * self.noise.sigma_data**2),)
