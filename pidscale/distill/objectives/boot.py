"""BOOT: the student learns the clean part of every state of the teacher's flow from its own value one level higher.

Knows no ranks. For a state x_t = y_t + t eps of the flow that begins at T eps, the student's G(eps, t) stands for y_t, which
is free of the noise that it began with (Gu, Zhai, Zhang, Liu and Susskind, BOOT: Data-free distillation of denoising
diffusion models with bootstrapping, 2023). With t and s neighbours of a Karras grid, s < t, an Euler step of the flow of y is

    G(eps, s)  =  stopgrad[ G(eps, t) + d (D(G(eps, t) + t eps, t) - G(eps, t)) ],   d = 1 - s / t,

and the two sides are compared after a division by d. At the top, G(eps, T) = D(T eps, T): the flow begins at the state
T eps + D(T eps, T). No endpoints are needed. At zero loss the student equals the composition of the Euler steps of the grid
from there. As for PID, G is the preconditioned network applied to T eps with the network level t instead of T, and a field
is G at the lowest level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, mismatch
from pidscale.distill.objectives.levels import neighbours
from pidscale.meter import StepTimer


@dataclass(frozen=True)
class BootSettings(DistanceSettings):
    """Settings `distill.objective` of BOOT.

    Attributes:
        name: `boot`.
        levels: Number of noise levels of the grid.
        boundary: Weight of the condition at the highest level.
    """

    name: str = "boot"
    levels: int = setting(40, at_least=2, at_most=100_000)
    boundary: float = setting(1.0, above=0)


@dataclass(frozen=True)
class Boot(Objective[BootSettings]):
    """BOOT objective. Parts of the loss: `bootstrap`, `top`, and the terms of the residual."""

    settings_class = BootSettings

    @classmethod
    def passes(cls, own: BootSettings) -> int:
        """Return 4: at t, at s, at the top and, for the residual, at the lowest level."""
        return 4

    @property
    def network_level(self) -> float:
        """Lowest level of the grid."""
        return self.teacher.noise.sigma_min

    def levels(self, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the levels t and the next lower levels s of the grid, float64 [B] each (`neighbours`)."""
        return neighbours(self.teacher.noise, self.own.levels, self.seed, "distill/boot", fresh)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss. All student inputs form a single batch, and those of the teacher another."""
        top = self.teacher.noise.sigma_max
        own = self.own
        eps, condition = batch.eps_BCYX, batch.condition_BP
        t, s = (level.to(eps.device, eps.dtype) for level in self.levels(batch.fresh))
        highest = torch.full_like(t, top)
        given = [t, s, highest] + ([] if self.physics is None else [torch.full_like(t, self.network_level)])
        with timer.section("student"):
            many = [len(given), 1, 1, 1]
            levels = torch.cat(given)
            inputs = (top * eps).repeat(many), torch.full_like(levels, top), condition.repeat(many[:2])
            here, ahead, first, *field = network(*inputs, levels).chunk(len(given))
        with timer.section("flow"), torch.no_grad():
            state = here + t.reshape(-1, 1, 1, 1) * eps
            teacher = conditioned(self.teacher.denoiser, condition.repeat(2, 1))
            clean, start = teacher(torch.cat([state, top * eps]), torch.cat([t, highest])).chunk(2)
            step = (1 - s / t).reshape(-1, 1, 1, 1)
            target = here / step + clean - here
        with timer.section("residual"):
            path = mismatch(ahead / step, target, own.huber, self.points, own.distance)
            begin = mismatch(first, start, own.huber, self.points, own.distance)
            parts = {"bootstrap": path, "top": begin}
            x = self.finished(field[0], condition) if field else ahead
            return self.penalised(path + own.boundary * begin, parts, x, batch)
