"""The PID objective: the residual of the teacher's probability-flow ODE along the student's own trajectory. Knows no ranks.

The student is a map of noise z = T eps to every level t,  x(z, t) = (t / T) z + (1 - t / T) G(z, t),  which starts at z
whatever its weights. It obeys  dx / dt = (x - D(x, t)) / t  where

    x_t - t (x_t - x_s) / (t - s)  =  G_t - t (1 - s / T) (G_t - G_s) / (t - s)   equals   D(x_t, t),

s being the next level of a Karras grid; in this form z cancels, and with it its large values. (Tee et al., Physics informed
distillation for diffusion models, TMLR 2024, eq. 9.) No pairs are needed: the teacher is asked once, at the student's own
state, without gradient; both of the student's calls have one. With zero loss the student is the Euler map of the grid. G is
the preconditioned network on z, given the network level t in place of T; a field is G at the lowest level, since x there
still holds t / T of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser, Denoiser, conditioned
from pidscale.diffusion.noise import karras_levels
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, mismatch
from pidscale.meter import StepTimer


@dataclass(frozen=True)
class PidSettings(DistanceSettings):
    """The section distill.objective of PID.

    Attributes:
        name: `pid`.
        levels: Noise levels of its grid.
    """

    name: str = "pid"
    levels: int = setting(250, at_least=2, at_most=100_000)


def trajectory_residual(
    z_BCYX: Tensor, here: Tensor, ahead: Tensor, t_B: Tensor, s_B: Tensor, top: float, teacher: Denoiser
) -> tuple[Tensor, Tensor]:
    """Return both sides of the equation above, the right one without gradient.

    Args:
        z_BCYX: Noise of the top level.
        here: G at t.
        ahead: G at s.
        t_B: A level of each sample.
        s_B: The next level, below t.
        top: The top level T.
        teacher: The denoiser D.

    Returns:
        The left and the right side, fields in the units of the model.
    """
    t, s = (level.to(z_BCYX.dtype).reshape(-1, 1, 1, 1) for level in (t_B, s_B))
    with torch.no_grad():
        clean = teacher((t / top) * z_BCYX + (1 - t / top) * here, t.flatten())
    return here - t * (1 - s / top) / (t - s) * (here - ahead), clean


@dataclass(frozen=True)
class Pid(Objective[PidSettings]):
    """Obey the teacher's flow. Parts: `trajectory`, and the residual's terms."""

    settings_class = PidSettings
    passes = 3  # at t, at s and, for the residual, at the lowest level

    @property
    def network_level(self) -> float:
        """The lowest level of the grid."""
        return self.teacher.noise.sigma_min

    def levels(self, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the level of each sample, uniform on the grid but its last.

        Args:
            fresh: Counters of the samples.

        Returns:
            The levels and those that follow them on the grid, float64 [B] each.
        """
        noise, count = self.teacher.noise, self.own.levels
        grid = karras_levels(noise.sigma_min, noise.sigma_max, count)
        uniform = seeds.uniform(self.seed, "distill/level", fresh, 1)[:, 0]
        place = (uniform * (count - 1)).long().clamp_max(count - 2)
        return grid[place], grid[place + 1]

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss; the student's calls go through it together."""
        top = self.teacher.noise.sigma_max
        eps = batch.eps_BCYX
        t, s = (level.to(eps.device, eps.dtype) for level in self.levels(batch.fresh))
        given = [t, s] if self.physics is None else [t, s, torch.full_like(t, self.network_level)]
        with timer.section("student"):
            z = top * eps
            many = [len(given), 1, 1, 1]
            levels = torch.cat(given)
            made = network(z.repeat(many), torch.full_like(levels, top), batch.condition_BP.repeat(many[:2]), levels)
            here, ahead, *field = made.chunk(len(given))
        with timer.section("flow"):
            teacher = conditioned(self.teacher.denoiser, batch.condition_BP)
            left, right = trajectory_residual(z, here, ahead, t, s, top, teacher)
        with timer.section("residual"):
            loss = mismatch(left, right, self.own.huber, self.points, self.own.distance)
            return self.penalised(loss, {"trajectory": loss}, self.held(field[0]) if field else here, batch)
