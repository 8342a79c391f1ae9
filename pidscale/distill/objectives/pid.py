"""The PID objective: the residual of the teacher's probability-flow ODE along the student's trajectory. Knows no ranks.

The student maps noise z = T eps to every level t,  x(z, t) = (t / T) z + (1 - t / T) G(z, t),  so that x(z, T) = z for any
weights. It satisfies  dx / dt = (x - D(x, t)) / t  if

    x_t - t (x_t - x_s) / (t - s)  =  G_t - t (1 - s / T) (G_t - G_s) / (t - s)   equals   D(x_t, t),

where s is the next level of a Karras grid; in this form z cancels, and with it its large values. (Tee et al., Physics
informed distillation for diffusion models, TMLR 2024, eq. 9.) No pairs of noise and endpoint are needed: the teacher is
evaluated once, at the student's state x_t and without gradient; both calls of the student have gradients. At zero loss the
student equals the composition of the Euler steps of the grid. G is the preconditioned network applied to z with the network
level t instead of T. A field is G at the lowest level, because x at that level still contains t / T of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser, Denoiser, conditioned
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, mismatch
from pidscale.distill.objectives.levels import neighbours
from pidscale.meter import StepTimer


@dataclass(frozen=True)
class PidSettings(DistanceSettings):
    """Settings `distill.objective` of PID.

    Attributes:
        name: `pid`.
        levels: Number of noise levels of the grid.
    """

    name: str = "pid"
    levels: int = setting(250, at_least=2, at_most=100_000)


def trajectory_residual(
    z_BCYX: Tensor, here: Tensor, ahead: Tensor, t_B: Tensor, s_B: Tensor, top: float, teacher: Denoiser
) -> tuple[Tensor, Tensor]:
    """Return both sides of the equation in the module docstring; the right side has no gradient.

    Args:
        z_BCYX: Noise at the highest level.
        here: G at level t.
        ahead: G at level s.
        t_B: Level t of each sample.
        s_B: Level s of each sample, the next one below t.
        top: Highest level T.
        teacher: Denoiser D.

    Returns:
        The left and the right side, fields in units of the model.
    """
    t, s = (level.to(z_BCYX.dtype).reshape(-1, 1, 1, 1) for level in (t_B, s_B))
    with torch.no_grad():
        clean = teacher((t / top) * z_BCYX + (1 - t / top) * here, t.flatten())
    return here - t * (1 - s / top) / (t - s) * (here - ahead), clean


@dataclass(frozen=True)
class Pid(Objective[PidSettings]):
    """PID objective. Parts of the loss: `trajectory`, and the terms of the residual."""

    settings_class = PidSettings

    @classmethod
    def passes(cls, own: PidSettings) -> int:
        """Return 3: at t, at s and, for the residual, at the lowest level."""
        return 3

    @property
    def network_level(self) -> float:
        """Lowest level of the grid."""
        return self.teacher.noise.sigma_min

    def levels(self, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the levels t and the next lower levels s of the grid, float64 [B] each (`neighbours`)."""
        return neighbours(self.teacher.noise, self.own.levels, self.seed, "distill/level", fresh)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss. All student inputs form a single batch."""
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
            x = self.finished(field[0], batch.condition_BP) if field else here
            return self.penalised(loss, {"trajectory": loss}, x, batch)
