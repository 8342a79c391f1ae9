"""PBFM: flow matching, plus the residual of an unrolled sample, with gradients that do not conflict. Knows no ranks.

    L_residual = t mean |R(x_1)|,     t = 1 / (1 + sigma)

where x_1 is what n Euler steps of the flow make of the noisy field, at times evenly spaced from its own to 1, and n grows by
one in each quarter of the training: the sample's residual, and not that of the mean over all samples, is what should vanish
(Baldan et al., Flow matching meets PDEs: a unified framework for physics-constrained generation, 2025). The gradients of the
two losses are combined by ConFIG (engine/conflict.py). In the noise levels sigma = (1 - t) / t of this package, an Euler step
in t is one in sigma. The paper has the residual in the units of its equation; here it is relative to the equation's own
scale, which the directions of the gradients do not depend on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import ObjectiveSettings, setting
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.solvers import unrolled
from pidscale.pde.residuals import absolute_shares
from pidscale.teacher.objectives.base import MicroBatch, TeacherObjective


@dataclass(frozen=True)
class PbfmSettings(ObjectiveSettings):
    """Settings `teacher.objective` of PBFM.

    Attributes:
        name: `pbfm`.
        weight: Factor of the residual; 0: plain training.
        unroll: Number of Euler steps of a sample in the last part of the training; it grows by one from part to part.
    """

    name: str = "pbfm"
    weight: float = setting(1.0, at_least=0)
    unroll: int = setting(4, at_least=1, at_most=64, why="gradients go through every step")


def times_to_levels(sigma_B: Tensor, steps: int) -> Tensor:
    """Return the noise levels of times that are evenly spaced from that of a sample to 1, where the noise level is 0.

    Args:
        sigma_B: Noise levels.
        steps: Number of steps.

    Returns:
        Levels [steps + 1, B].
    """
    time = 1 / (1 + sigma_B)
    share = torch.linspace(0, 1, steps + 1, dtype=sigma_B.dtype, device=sigma_B.device)[:, None]
    later = time + share * (1 - time)
    return torch.cat([sigma_B[None], ((1 - later) / later)[1:-1], torch.zeros_like(sigma_B)[None]])


@dataclass(frozen=True)
class Pbfm(TeacherObjective[PbfmSettings]):
    """PBFM objective."""

    settings_class = PbfmSettings
    parts = ("denoising", "residual")

    @classmethod
    def passes(cls, own: PbfmSettings) -> int:
        """Return the largest number of steps."""
        return own.unroll if own.weight else 1

    @classmethod
    def conflict_free(cls, own: PbfmSettings) -> bool:
        """Return whether the residual has a weight."""
        return own.weight > 0

    def losses(self, denoiser: Denoiser, batch: MicroBatch) -> tuple[Tensor, ...]:
        """Return the weighted squared error of the denoised fields, and the residual of the unrolled ones."""
        own = self.own
        steps = min(own.unroll, 1 + int(own.unroll * batch.progress)) if own.weight else 1
        levels = times_to_levels(batch.sigma_B, steps)
        denoised, x = unrolled(denoiser, batch.noisy_BCYX, levels)
        errors = (denoised - batch.x_BCYX).square().flatten(1).sum(dim=1) / self.points
        plain = self.noise.weight(batch.sigma_B) * errors
        if not own.weight:
            return plain, torch.zeros_like(plain)
        fields = self.problem.normaliser.decode(x)
        size = absolute_shares(self.problem.pde, self.window, fields, batch.params_BP)
        return plain, own.weight / (1 + batch.sigma_B) * size
