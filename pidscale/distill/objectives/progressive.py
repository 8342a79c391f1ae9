"""Progressive distillation: in each round the student learns to take two steps of its teacher at once. Knows no ranks.

The teacher of the first round is sampled with N Euler steps (DDIM), where N is a power of two. The student of a round goes
from a level a to the level c of the next but one point of the grid in one step, and stands for two steps of the teacher of
the round, by way of b (Salimans and Ho, Progressive distillation for fast sampling of diffusion models, ICLR 2022):

    D_student(x_a, a)  =  w D(x_a, a) + (1 - w) D(x_b, b),     w = (c / b) (1 - b / a) / (1 - c / a)

where x_b is the teacher's Euler step from x_a, and D on the right are calls of the teacher. The student becomes the teacher
of the next round, whose grid has every second point; the last round has the two levels sigma_max and 0, and a field is one
call. The last two rounds are twice as long as the others. Squared errors have the weight max(1, sigma_data^2 / a^2) of the
paper.

The paper takes x_a from data with noise. Here it is an endpoint of the first teacher with noise, as for consistency
distillation, and at the highest level noise alone, which is what a student is given when it generates. In the paper
optimiser and average start again in each round; here both go on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import Learned, Objective, Round, Targets, mismatch
from pidscale.distill.objectives.levels import HalvedSettings, places, states, two_steps
from pidscale.meter import StepTimer

STREAM = "distill/progressive"


@dataclass(frozen=True)
class ProgressiveSettings(HalvedSettings):
    """Settings `distill.objective` of progressive distillation.

    Attributes:
        name: `progressive`.
    """

    name: str = "progressive"

    @property
    def begins(self) -> list[float]:
        """Share of the steps after which each round begins."""
        count = self.solver_steps.bit_length() - 1
        lengths = [2 if number >= count - 2 else 1 for number in range(count)]
        return [sum(lengths[:number]) / sum(lengths) for number in range(count)]


@dataclass(frozen=True)
class Progressive(Objective[ProgressiveSettings]):
    """Progressive distillation objective. Parts of the loss: `halving`, and the terms of the residual."""

    settings_class = ProgressiveSettings

    @classmethod
    def passes(cls, own: ProgressiveSettings) -> int:
        """Return 2: at a level of the grid and, for the residual, at the highest level."""
        return 2

    @classmethod
    def targets(cls, own: ProgressiveSettings) -> Targets:
        """Return `ENDPOINTS`: they are the fields that noise is added to."""
        return Targets.ENDPOINTS

    @classmethod
    def rounds(cls, own: ProgressiveSettings) -> tuple[Round, ...]:
        """Return one round for each halving."""
        return tuple(Round(begins) for begins in own.begins)

    def levels(self, step: int, fresh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a step of the student for each sample, uniformly from those of its round.

        Args:
            step: Number of the training step.
            fresh: Counters of the samples.

        Returns:
            The levels a, b and c, float64 [B] each.
        """
        round_ = sum(step >= int(begins * self.settings.steps) for begins in self.own.begins[1:])
        grid = self.teacher.noise.levels(self.own.solver_steps)[:: 2**round_]
        place = 2 * places(len(grid) // 2, self.seed, f"{STREAM} level", fresh)
        return grid[place], grid[place + 1], grid[place + 2]

    def states(self, batch: Batch, sigma_B: Tensor) -> Tensor:
        """Return states of the flow at these levels, whose noise is drawn again at every step."""
        return states(batch, sigma_B, self.window, self.teacher.noise.sigma_max, self.seed, STREAM)

    def halved(self, x_BCYX: Tensor, levels: tuple[Tensor, Tensor, Tensor], condition_BP: Tensor) -> Tensor:
        """Return what the student should answer for two steps of the teacher; two teacher calls.

        Args:
            x_BCYX: States at level a.
            levels: Levels a, b and c of each sample.
            condition_BP: Condition of each sample.

        Returns:
            Fields [B, C, y, X].
        """
        teacher = conditioned(self.teacher.denoiser, condition_BP)
        return two_steps(lambda x, here, _: teacher(x, here), x_BCYX, levels)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss. All student inputs form a single batch; the teacher is evaluated without gradient."""
        eps, condition, own = batch.eps_BCYX, batch.condition_BP, self.own
        a, b, c = (level.to(eps.device, eps.dtype) for level in self.levels(batch.step, batch.fresh))
        states = [self.states(batch, a)]
        levels = [a]
        if self.physics is not None:
            top = self.teacher.noise.sigma_max
            states.append(top * eps)
            levels.append(torch.full_like(a, top))
        with timer.section("student"):
            made = network(torch.cat(states), torch.cat(levels), condition.repeat(len(states), 1))
            clean, *field = made.chunk(len(states))
        with timer.section("flow"), torch.no_grad():
            target = self.halved(states[0], (a, b, c), condition)
        with timer.section("residual"):
            weight = (self.teacher.noise.sigma_data / a).square().clamp_min(1.0)
            loss = weight * mismatch(clean, target, own.huber, self.points, own.distance)
            x = self.finished(field[0], condition) if field else clean
            return self.penalised(loss, {"halving": loss}, x, batch)
