"""What every objective of a distillation shares, and the match with the teacher's endpoints. Knows no ranks.

A regression may be pseudo-Huber in place of squared: where noise leaves open on which side of a jump a point lies, a squared
match is least at a value between the phases, which no field has; a linear tail keeps to the likelier one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from pidscale.config import DistillSettings
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.diffusion.solvers import one_step
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.physics import Physics
from pidscale.generator.generator import Generator
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.pde.constraints import constrain

Parts = dict[str, Tensor]


class Learned(NamedTuple):
    """What a micro-step came to: the loss of each sample [B], its parts, and the student's samples [B, C, y, X]."""

    loss: Tensor
    parts: Parts
    fields: Tensor


def mismatch(
    x_BCYX: Tensor, target_BCYX: Tensor, huber: float = 0.0, points: int | None = None, distance: str = "l2"
) -> Tensor:
    """Mean squared difference of each sample, [B]; with a width c > 0 pseudo-Huber, 2 c (sqrt(d^2 + c^2) - c) at each point.

    The latter is d^2 far below c and 2 c |d| far above (Charbonnier et al., IEEE Trans. Image Process. 6, 1997). distance
    `l1`: the mean of |d| instead.
    points: values of a whole sample, where these are some rows of it: the result is then their share.
    """
    difference = x_BCYX - target_BCYX
    values = difference.abs() if distance == "l1" else difference.square()
    if huber > 0:
        values = 2 * huber * values / ((values + huber**2).sqrt() + huber)  # the same without cancellation
    return values.flatten(1).sum(dim=1) / (points or x_BCYX[0].numel())


@dataclass(frozen=True)
class Objective(ABC):
    """A student's loss, a share of the rows at hand. physics None is the lambda = 0 twin: distillation alone."""

    settings: DistillSettings
    teacher: Generator
    window: Window
    physics: Physics | None

    @property
    def told(self) -> float | None:
        """The level that the student's network is told when it makes a field; that of its noise if None."""
        return None

    @property
    def points(self) -> int:
        """Values of a whole joint field."""
        return len(self.teacher.channels) * math.prod(self.window.grid.shape)

    @abstractmethod
    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """What the student makes of a batch, and its loss; the parts hold the squared relative residual of each term."""

    def sample(self, network: ConditionalDenoiser, eps_BCYX: Tensor, condition_BP: Tensor) -> Tensor:
        """What the student makes of noise, in units of the model: one call."""
        x = one_step(conditioned(network, condition_BP), eps_BCYX, self.teacher.noise.sigma_max, self.told)
        return self.held(x)

    def held(self, x_BCYX: Tensor) -> Tensor:
        """A sample under the hard constraints."""
        names, teacher = self.settings.constraints, self.teacher
        if not names:
            return x_BCYX
        units = teacher.normaliser
        return units.encode(constrain(teacher.pde, self.window, names, units.decode(x_BCYX)))

    def penalised(self, loss_B: Tensor, parts: Parts, x_BCYX: Tensor, batch: Batch) -> Learned:
        """With the residual of the student's own samples, once its time has come."""
        if self.physics is None:
            return Learned(loss_B, parts, x_BCYX)
        squares = self.physics.squares(x_BCYX, batch.params_BP)
        loss = loss_B + ramp(self.settings, batch.step) * self.physics.penalty(squares)
        return Learned(loss, parts | squares, x_BCYX)


def ramp(settings: DistillSettings, step: int) -> float:
    """The share of lambda that counts at a step: from physics_from on it grows to 1 over `physics_ramp` of the steps."""
    begun = step - int(settings.physics_from * settings.steps)
    return min(1.0, (begun + 1) / max(1.0, settings.physics_ramp * settings.steps))
