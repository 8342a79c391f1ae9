"""Shortcut: one network takes steps of all sizes, and a step of any size equals two of half its size. Knows no ranks.

On a Karras grid of N steps, where N is a power of two, the student's G(x, a, c) is the denoised field with which one step
leads from a state x at level a to level c,

    x_c  =  (c / a) x  +  (1 - c / a) G(x, a, c),

for every pair of levels that lie 2, 4, ..., N points of the grid apart. Two steps of half the size, by way of b, are the
target:

    G(x_a, a, c)  =  stopgrad[ w G(x_a, a, b) + (1 - w) G(x_b, b, c) ],     w = (c / b) (1 - b / a) / (1 - c / a)

(Frans, Hafner, Levine and Abbeel, One step diffusion via shortcut models, ICLR 2025, in terms of a denoiser). On the right
are an average of the student, and the teacher where a half is one point of the grid: there the paper trains on data, since
it has no teacher. At zero loss the step from the highest level to the lowest is the composition of the N Euler steps of the
teacher's flow. Sizes are drawn uniformly, and so are the steps of a size. Errors have the weight max(1, sigma_data^2 / a^2),
as for progressive distillation, and states are made as there: noisy endpoints, and noise alone at the highest level.

The network is conditioned on the level c where a step ends, and its preconditioning knows the level a where it begins: a
student with the teacher's weights is right where the two are the same. A field is G from the highest level to the lowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser, Denoiser, conditioned
from pidscale.diffusion.noise import karras_levels
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import Learned, Objective, Partner, Targets, mismatch
from pidscale.distill.objectives.levels import HalvedSettings, places, states, two_steps
from pidscale.meter import StepTimer

STREAM = "distill/shortcut"
TARGET = "target"


class Steps(NamedTuple):
    """A step of each sample: levels where it begins, is halved and ends, float64 [B], and whether the teacher halves it."""

    begin: Tensor
    middle: Tensor
    end: Tensor
    smallest: Tensor


@dataclass(frozen=True)
class ShortcutSettings(HalvedSettings):
    """Settings `distill.objective` of a shortcut student.

    Attributes:
        name: `shortcut`.
        rate: Decay of the averaged target: the share of it that each step keeps.
    """

    name: str = "shortcut"
    rate: float = setting(0.95, at_least=0, below=1)


@dataclass(frozen=True)
class Shortcut(Objective[ShortcutSettings]):
    """Shortcut objective. Parts of the loss: `halving`, and the terms of the residual."""

    settings_class = ShortcutSettings

    @classmethod
    def passes(cls, own: ShortcutSettings) -> int:
        """Return 2: for a step of any size and, for the residual, for that from the highest level to the lowest."""
        return 2

    @classmethod
    def targets(cls, own: ShortcutSettings) -> Targets:
        """Return `ENDPOINTS`: they are the fields that noise is added to."""
        return Targets.ENDPOINTS

    @classmethod
    def partners(cls, own: ShortcutSettings) -> tuple[Partner, ...]:
        """Return the averaged target."""
        return (Partner(TARGET, own.rate),)

    @property
    def network_level(self) -> float:
        """Lowest level of the grid, where the step that makes a field ends."""
        return self.teacher.noise.sigma_min

    def steps(self, fresh: Tensor) -> Steps:
        """Draw a step for each sample: its size uniformly from all sizes, then its place from those of this size."""
        noise, count = self.teacher.noise, self.own.solver_steps
        grid = karras_levels(noise.sigma_min, noise.sigma_max, count + 1)
        half = 2 ** places(count.bit_length() - 1, self.seed, f"{STREAM} size", fresh)
        uniform = seeds.uniform(self.seed, f"{STREAM} level", fresh, 1)[:, 0]
        place = 2 * half * (uniform * (count // (2 * half))).long()
        return Steps(grid[place], grid[place + half], grid[place + 2 * half], half == 1)

    def halved(self, x_BCYX: Tensor, steps: Steps, condition_BP: Tensor) -> Tensor:
        """Return what the student should answer for two steps of half the size; two calls of the average or the teacher.

        Args:
            x_BCYX: States where the steps begin.
            steps: The step of each sample.
            condition_BP: Condition of each sample.

        Returns:
            Fields [B, C, y, X].
        """
        found = torch.empty_like(x_BCYX)
        levels = [level.to(x_BCYX.device, x_BCYX.dtype) for level in steps[:3]]
        for by_teacher in (True, False):
            chosen = (steps.smallest == by_teacher).nonzero()[:, 0].to(x_BCYX.device)
            if not len(chosen):
                continue
            of = conditioned(self.teacher.denoiser if by_teacher else self.networks[TARGET], condition_BP[chosen])

            def denoise(
                x: Tensor, here: Tensor, there: Tensor, own: bool = not by_teacher, of: Denoiser = of
            ) -> Tensor:
                return of(x, here, there) if own else of(x, here)

            a, b, c = (level[chosen] for level in levels)
            found[chosen] = two_steps(denoise, x_BCYX[chosen], (a, b, c)).to(found.dtype)
        return found

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss. All student inputs form a single batch; teacher and target are evaluated without gradient."""
        eps, condition, own = batch.eps_BCYX, batch.condition_BP, self.own
        noise = self.teacher.noise
        steps = self.steps(batch.fresh)
        begin, end = (level.to(eps.device, eps.dtype) for level in (steps.begin, steps.end))
        given = [states(batch, begin, self.window, noise.sigma_max, self.seed, STREAM)]
        levels, ends = [begin], [end]
        if self.physics is not None:
            given.append(noise.sigma_max * eps)
            levels.append(torch.full_like(begin, noise.sigma_max))
            ends.append(torch.full_like(end, self.network_level))
        with timer.section("student"):
            made = network(torch.cat(given), torch.cat(levels), condition.repeat(len(given), 1), torch.cat(ends))
            clean, *field = made.chunk(len(given))
        with timer.section("flow"), torch.no_grad():
            target = self.halved(given[0], steps, condition)
        with timer.section("residual"):
            weight = (noise.sigma_data / begin).square().clamp_min(1.0)
            loss = weight * mismatch(clean, target, own.huber, self.points, own.distance)
            x = self.finished(field[0], condition) if field else clean
            return self.penalised(loss, {"halving": loss}, x, batch)
