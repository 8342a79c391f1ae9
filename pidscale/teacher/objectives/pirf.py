"""PIRF: a finished teacher learns from the residual of its own samples. Knows no ranks and no files.

    L = mean (R_l2(x)^2 + R_boundary(x)^2),     x = the sample that the flow makes of noise

The gradient goes back through the last `through` of the `steps` solver steps only; earlier ones are made without (Yuan et
al., PIRF: physics-informed reward fine-tuning for diffusion models, 2025, with 2 of 20 steps). No data is compared with, so
only the small learning rate and the small number of steps keep the distribution. Steps are Euler's, of one call each, on the
levels of the schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import ObjectiveSettings, UserError, setting
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.solvers import unrolled
from pidscale.pde.residuals import residual_shares
from pidscale.teacher.objectives.base import MicroBatch, TeacherObjective


@dataclass(frozen=True)
class PirfSettings(ObjectiveSettings):
    """Settings `teacher.objective` of PIRF.

    Attributes:
        name: `pirf`.
        steps: Number of solver steps of a sample.
        through: Number of the last steps that gradients go through.
    """

    name: str = "pirf"
    steps: int = setting(20, at_least=1, at_most=10_000, why="a sample takes a network call for each")
    through: int = setting(2, at_least=1, at_most=64, why="gradients go through each")

    def __post_init__(self) -> None:
        if self.through > self.steps:
            raise UserError(
                f"teacher.objective.through={self.through}: more than the teacher.objective.steps={self.steps} that there "
                "are; lower it"
            )


@dataclass(frozen=True)
class Pirf(TeacherObjective[PirfSettings]):
    """PIRF objective."""

    settings_class = PirfSettings
    parts = ("residual",)
    needs_start = True

    @classmethod
    def passes(cls, own: PirfSettings) -> int:
        """Return the number of steps that gradients go through."""
        return own.through

    def losses(self, denoiser: Denoiser, batch: MicroBatch) -> tuple[Tensor, ...]:
        """Return the squared residual of samples from the noise of the batch."""
        own = self.own
        levels = self.noise.levels(own.steps).to(batch.eps_BCYX.device, batch.eps_BCYX.dtype)
        each = levels[:, None].expand(-1, len(batch.eps_BCYX))
        free = own.steps - own.through
        x = levels[0] * batch.eps_BCYX
        with torch.no_grad():
            x = unrolled(denoiser, x, each[: free + 1])[1] if free else x
        x = unrolled(denoiser, x, each[free:])[1]
        fields = self.problem.normaliser.decode(x)
        squares = residual_shares(self.problem.pde, self.window, fields, batch.params_BP)
        return (squares["l2"] + squares["boundary"],)
