"""PIDM: denoising, plus the residual of the denoised fields as a virtual observation. Knows no ranks and no files.

The residual R of an estimate of the clean field is observed to be 0 with a normal error of variance V / c:

    L = L_denoising + c R(estimate)^2 / (2 V(sigma)),     V = s^2 (sigma^2 - s^2) / sigma^2

where V is the variance of the state at the next lower level s given x_t and the clean field, and s is one step of a Karras
grid of `steps` levels below sigma (Bastek, Sun and Kochmann, Physics-informed diffusion models, ICLR 2025). With
`estimate_steps=1`, the paper's "mean estimation", the estimate is D(x_t, sigma); with more, its "sample estimation", it is
the sample that so many deterministic (DDIM) steps make of x_t. Estimates are thus held to the equation more firmly the less
noise they have. Below the last step of the grid, V is that of the last step. The paper has the residual in the units of its
equation; here R^2 is the sum of the mean squares of the interior and of the boundary relative to the equation's own scale,
so that c means the same for every equation.

The mean over clean fields of a noisy one does not obey the equation, even where every clean field does (Jensen's gap), so
that the term of the mean competes with the denoising at high noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import ObjectiveSettings, setting
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.noise import Noise
from pidscale.diffusion.solvers import unrolled
from pidscale.pde.residuals import residual_shares
from pidscale.teacher.objectives.base import MicroBatch, TeacherObjective

RHO = 7.0  # of the Karras grid


@dataclass(frozen=True)
class PidmSettings(ObjectiveSettings):
    """Settings `teacher.objective` of PIDM.

    Attributes:
        name: `pidm`.
        weight: Factor c of the residual.
        steps: Number of levels of the grid.
        estimate_steps: Number of steps of the estimate; 1 for the mean.
    """

    name: str = "pidm"
    weight: float = setting(1e-3, at_least=0)
    steps: int = setting(100, at_least=2, at_most=100_000)
    estimate_steps: int = setting(1, at_least=1, at_most=64, why="gradients go through every step")


def step_variance(noise: Noise, sigma_B: Tensor, steps: int) -> Tensor:
    """Return the variance V of a state one step of a Karras grid below sigma, given the state at sigma and the clean field.

    Args:
        noise: The schedule, whose lowest and highest level are the ends of the grid.
        sigma_B: Noise levels.
        steps: Number of levels of the grid.

    Returns:
        Variances [B].
    """
    low, high = (level ** (1 / RHO) for level in (noise.sigma_min, noise.sigma_max))
    step = (high - low) / (steps - 1)
    place = (sigma_B.double() ** (1 / RHO)).clamp_min(low + step)
    here, below = place**RHO, (place - step) ** RHO
    return (below**2 * (here**2 - below**2) / here**2).to(sigma_B.dtype)


def estimate_levels(noise: Noise, sigma_B: Tensor, steps: int) -> Tensor:
    """Return the levels of the steps from each noise level to 0, evenly spaced in sigma^(1 / 7) down to the lowest one.

    Args:
        noise: The schedule.
        sigma_B: Noise levels.
        steps: Number of steps.

    Returns:
        Levels [steps + 1, B].
    """
    low = torch.full_like(sigma_B, noise.sigma_min).minimum(sigma_B) ** (1 / RHO)
    share = torch.arange(1, steps, dtype=sigma_B.dtype, device=sigma_B.device)[:, None] / steps
    high = sigma_B ** (1 / RHO)
    return torch.cat([sigma_B[None], (high + share * (low - high)) ** RHO, torch.zeros_like(sigma_B)[None]])


@dataclass(frozen=True)
class Pidm(TeacherObjective[PidmSettings]):
    """PIDM objective."""

    settings_class = PidmSettings
    parts = ("denoising", "residual")

    @classmethod
    def passes(cls, own: PidmSettings) -> int:
        """Return the number of steps of the estimate."""
        return own.estimate_steps

    def losses(self, denoiser: Denoiser, batch: MicroBatch) -> tuple[Tensor, ...]:
        """Return the weighted squared error of the denoised fields, and the weighted square of the estimates' residual."""
        own = self.own
        levels = estimate_levels(self.noise, batch.sigma_B, own.estimate_steps)
        denoised, estimate = unrolled(denoiser, batch.noisy_BCYX, levels)
        errors = (denoised - batch.x_BCYX).square().flatten(1).sum(dim=1) / self.points
        fields = self.problem.normaliser.decode(estimate)
        squares = residual_shares(self.problem.pde, self.window, fields, batch.params_BP)
        factor = own.weight / (2 * step_variance(self.noise, batch.sigma_B, own.steps))
        return self.noise.weight(batch.sigma_B) * errors, factor * (squares["l2"] + squares["boundary"])
