"""What an objective of a distillation is: what it asks of the loop, and the loss of a student. Knows no ranks.

A regression may be pseudo-Huber in place of squared: where noise leaves open on which side of a jump a point lies, a squared
match is least at a value between the phases, which no field has; a linear tail keeps to the likelier one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from torch import Tensor

from pidscale.config import DistillSettings, ObjectiveSettings, UserError, setting
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.diffusion.solvers import one_step
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.physics import Physics
from pidscale.generator.generator import Generator
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.pde.constraints import constrain

Parts = dict[str, Tensor]
S = TypeVar("S", bound=ObjectiveSettings)


class Targets(Enum):
    """What a batch holds besides noise and parameters."""

    NONE = "none"
    ENDPOINTS = "endpoints"  # the teacher's, of the same noise


@dataclass(frozen=True)
class Partner:
    """A second network beside each student.

    Attributes:
        name: Names it in checkpoints, parts of the loss and messages.
        rate: None: it begins with the teacher's weights and is trained on `Objective.partner_losses`, a step for each of the
            student's. A number: it is an average of the student's weights, of which each step keeps this share.
    """

    name: str
    rate: float | None = None


@dataclass(frozen=True)
class Round:
    """A stretch of the steps with a teacher of its own.

    Attributes:
        begins: The share of the steps after which it begins, 0 for the first. From the second round on, the teacher of each
            student's losses is the average of its own weights when the round began; endpoints stay those of the first.
    """

    begins: float = 0.0


class Learned(NamedTuple):
    """The result of a micro-step.

    Attributes:
        loss: Loss of each sample, [B].
        parts: Parts of the loss by name, [B] each.
        fields: Fields of the student, [B, C, y, X], which `partner_losses` is given. With physics they are its samples under
            the hard constraints, whose residual is in the loss; without, an objective may return any of its fields, without
            constraints.
    """

    loss: Tensor
    parts: Parts
    fields: Tensor


@dataclass(frozen=True)
class DistanceSettings(ObjectiveSettings):
    """Settings of an objective that compares fields.

    Attributes:
        huber: Width of a pseudo-Huber l2 distance, in units of the model; 0: squared.
        distance: Between fields that should be equal: squared (`l2`), or absolute (`l1`).
    """

    huber: float = setting(0.0, at_least=0)
    distance: str = setting("l2", choices=("l2", "l1"))

    def __post_init__(self) -> None:
        if self.distance == "l1" and self.huber > 0:
            raise UserError(
                f"distill.objective.huber={self.huber:g} softens distance l2; set distill.objective.huber=0 or "
                "distill.objective.distance=l2"
            )


def mismatch(
    x_BCYX: Tensor, target_BCYX: Tensor, huber: float = 0.0, points: int | None = None, distance: str = "l2"
) -> Tensor:
    """Return the mean squared difference of each sample, or a distance with lighter tails.

    With a width c > 0 it is pseudo-Huber, 2 c (sqrt(d^2 + c^2) - c) at each point: d^2 far below c and 2 c |d| far above
    (Charbonnier et al., IEEE Trans. Image Process. 6, 1997).

    Args:
        x_BCYX: Fields in the units of the model.
        target_BCYX: What they are compared with.
        huber: The width c, in units of the model; 0: squared.
        points: Values of a whole sample, where these are some of its rows: the result is then the share of these rows.
        distance: `l2`, or `l1` for the mean of |d|.

    Returns:
        The distance of each sample, [B].
    """
    difference = x_BCYX - target_BCYX
    values = difference.abs() if distance == "l1" else difference.square()
    if huber > 0:
        values = 2 * huber * values / ((values + huber**2).sqrt() + huber)  # the same without cancellation
    return values.flatten(1).sum(dim=1) / (points or x_BCYX[0].numel())


@dataclass(frozen=True)
class Objective(ABC, Generic[S]):
    """The loss of a student, a share of the rows at hand, and what the loop has to provide for it.

    A class of its own writes `losses`, and states what differs from the defaults here. What follows from the settings alone
    is asked of the class, before there is a teacher. docs/own_objective.md writes one.

    Attributes:
        settings: The section `distill`.
        teacher: The frozen teacher.
        window: The rows of this rank.
        physics: The residual's part of the loss; None for the control, which is trained by distillation alone.
        seed: The run's, for draws of the objective's own.
        networks: The networks of the partners, by name; those of one student alone.
        settings_class: The dataclass of the section `distill.objective`.
        passes: Samples through the student for each sample of a micro-step, whose activations are kept at once.
    """

    settings: DistillSettings
    teacher: Generator
    window: Window
    physics: Physics | None = None
    seed: int = 0
    networks: Mapping[str, ConditionalDenoiser] = field(default_factory=dict)
    settings_class: ClassVar[type[ObjectiveSettings]]
    passes: ClassVar[int] = 1

    @classmethod
    def targets(cls, own: Any) -> Targets:
        """Return what batches hold, by the settings of the objective."""
        return Targets.NONE

    @classmethod
    def partners(cls, own: Any) -> tuple[Partner, ...]:
        """Return the networks that are trained or averaged beside each student, by the settings of the objective."""
        return ()

    @classmethod
    def rounds(cls, own: Any) -> tuple[Round, ...]:
        """Return the rounds of the training in their order, by the settings of the objective."""
        return (Round(),)

    @cached_property
    def own(self) -> S:
        """The settings of the objective."""
        return cast(S, self.settings.own)

    @property
    def network_level(self) -> float | None:
        """The noise level that the student's network is given when it makes a field; None: that of its noise."""
        return None

    @property
    def points(self) -> int:
        """Values of a whole joint field."""
        return len(self.teacher.channels) * math.prod(self.window.grid.shape)

    @abstractmethod
    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss of a micro-step.

        Args:
            network: The student, called with noisy fields, their levels, the condition and, where it differs, the level that
                the network is given. It is called once, so that ZeRO sees one forward pass for each backward pass.
            batch: Samples of this rank.
            timer: Times the parts: `student` for its calls, `residual` for what follows, names of the objective's own.

        Returns:
            Loss, parts and fields; with physics, `penalised` adds the squared relative residual of each term.
        """

    def partner_losses(self, name: str, x_BCYX: Tensor, batch: Batch) -> Tensor:
        """Return the loss [B] of a partner that is trained.

        Args:
            name: Which partner.
            x_BCYX: The fields that `losses` returned.
            batch: What they were made from.

        Returns:
            The loss of each sample, [B].

        Raises:
            NotImplementedError: No partner of this objective is trained.
        """
        raise NotImplementedError(f"{type(self).__name__} trains no partner {name!r}")

    def taught_by(self, denoiser: Any) -> Objective[S]:
        """Return the objective of a later round, whose teacher calls this denoiser."""
        return replace(self, teacher=replace(self.teacher, denoiser=denoiser))

    def sample(self, network: ConditionalDenoiser, eps_BCYX: Tensor, condition_BP: Tensor) -> Tensor:
        """Return what the student makes of noise in one call, in units of the model.

        Args:
            network: The student.
            eps_BCYX: Standard normal noise.
            condition_BP: Parameters of the samples as the network takes them.

        Returns:
            Fields under the hard constraints, [B, C, y, X].
        """
        x = one_step(conditioned(network, condition_BP), eps_BCYX, self.teacher.noise.sigma_max, self.network_level)
        return self.held(x)

    def held(self, x_BCYX: Tensor) -> Tensor:
        """Return samples under the hard constraints."""
        names, teacher = self.settings.constraints, self.teacher
        if not names:
            return x_BCYX
        units = teacher.normaliser
        return units.encode(constrain(teacher.pde, self.window, names, units.decode(x_BCYX)))

    def penalised(self, loss_B: Tensor, parts: Parts, x_BCYX: Tensor, batch: Batch) -> Learned:
        """Add the residual of the student's own samples to a loss, where there is physics.

        Args:
            loss_B: The loss of the distillation.
            parts: Its parts, [B] each.
            x_BCYX: With physics, the samples, made by one call and under the hard constraints; without, any fields of the
                student, which are passed on.
            batch: What they were made from.

        Returns:
            The loss with the weighted terms of the residual, and the parts with their squares.
        """
        if self.physics is None:
            return Learned(loss_B, parts, x_BCYX)
        squares = self.physics.squares(x_BCYX, batch.params_BP)
        loss = loss_B + ramp(self.settings, batch.step) * self.physics.penalty(squares)
        return Learned(loss, parts | squares, x_BCYX)


def ramp(settings: DistillSettings, step: int) -> float:
    """Return the share of lambda that counts at a step: from physics_from on it grows to 1 over physics_ramp of the steps."""
    begun = step - int(settings.physics_from * settings.steps)
    return min(1.0, (begun + 1) / max(1.0, settings.physics_ramp * settings.steps))
