"""Base class of the objectives of a distillation: the loss of a student, and what the loop has to provide. Knows no ranks.

A regression may use the pseudo-Huber distance instead of the squared error. Near a jump with uncertain position, the squared
error is minimised by a value between the phases, which no field has; a linear tail favours the more likely phase.
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
from pidscale.pde.head import correct_rows
from pidscale.pde.parameters import params_of

Parts = dict[str, Tensor]
S = TypeVar("S", bound=ObjectiveSettings)


class Targets(Enum):
    """Contents of a batch besides noise and parameters."""

    NONE = "none"
    ENDPOINTS = "endpoints"  # of the teacher, from the same noise


@dataclass(frozen=True)
class Partner:
    """A second network that accompanies each student.

    Attributes:
        name: Name of the network in checkpoints, parts of the loss and messages.
        rate: None for a network that starts from the teacher's weights and is trained on `Objective.partner_losses`, with one
            step per step of the student. A number for an exponential average of the student's weights with this decay.
    """

    name: str
    rate: float | None = None


@dataclass(frozen=True)
class Round:
    """A range of training steps with a fixed teacher.

    Attributes:
        begins: Share of the steps after which the round begins; 0 for the first round. From the second round on, the teacher
            in the losses of a student is the average of that student's weights at the beginning of the round. Endpoints
            always come from the first teacher.
    """

    begins: float = 0.0


class Learned(NamedTuple):
    """Result of a micro-step.

    Attributes:
        loss: Loss of each sample, [B].
        parts: Parts of the loss by name, [B] each.
        fields: Fields of the student [B, C, y, X], which `partner_losses` is given. With physics they are its samples behind
            constraints and head, whose residual is in the loss; without, an objective may return any of its fields.
    """

    loss: Tensor
    parts: Parts
    fields: Tensor


@dataclass(frozen=True)
class DistanceSettings(ObjectiveSettings):
    """Settings of an objective that compares fields.

    Attributes:
        huber: Width of the pseudo-Huber l2 distance, in units of the model; 0: squared error.
        distance: Distance between fields that should be equal: squared (`l2`) or absolute (`l1`) error.
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
    """Return the mean squared error of each sample, or a distance that grows less for large errors.

    With a width c > 0, this is the pseudo-Huber distance 2 c (sqrt(d^2 + c^2) - c), averaged over all points: about d^2 for
    |d| far below c and 2 c |d| far above (Charbonnier et al., IEEE Trans. Image Process. 6, 1997).

    Args:
        x_BCYX: Fields in units of the model.
        target_BCYX: Target fields in units of the model.
        huber: Width c in units of the model; 0: squared error.
        points: Number of values of a whole sample, if the fields are only some of its rows; the result is then the share of
            these rows. Default: the number of values in a field.
        distance: `l2` for the squared error, `l1` for the mean of |d|.

    Returns:
        Distances [B].
    """
    difference = x_BCYX - target_BCYX
    values = difference.abs() if distance == "l1" else difference.square()
    if huber > 0:
        values = 2 * huber * values / ((values + huber**2).sqrt() + huber)  # avoids cancellation
    return values.flatten(1).sum(dim=1) / (points or x_BCYX[0].numel())


@dataclass(frozen=True)
class Objective(ABC, Generic[S]):
    """Base class of objectives: computes the loss of a student, and declares what the loop has to provide for it.

    Subclasses implement `losses` and override defaults as needed. Class methods depend on the settings only, because they are
    called before a teacher is loaded. docs/own_objective.md shows an example. Losses are the shares of this rank's rows.

    Attributes:
        settings: Settings of the section `distill`.
        teacher: The frozen teacher.
        window: Rows of this rank.
        physics: The residual term of the loss; None for the control, which is trained by distillation alone.
        seed: Random seed of the run, for the random draws of the objective.
        networks: Partner networks by name, for a single student.
        settings_class: Dataclass of the section `distill.objective`.
    """

    settings: DistillSettings
    teacher: Generator
    window: Window
    physics: Physics | None = None
    seed: int = 0
    networks: Mapping[str, ConditionalDenoiser] = field(default_factory=dict)
    settings_class: ClassVar[type[ObjectiveSettings]]

    @classmethod
    def passes(cls, own: Any) -> int:
        """Return the number of student evaluations per sample of a micro-step whose activations are held at the same time."""
        return 1

    @classmethod
    def targets(cls, own: Any) -> Targets:
        """Return what batches contain, given the settings of the objective."""
        return Targets.NONE

    @classmethod
    def partners(cls, own: Any) -> tuple[Partner, ...]:
        """Return the networks that are trained or averaged beside each student, given the settings of the objective."""
        return ()

    @classmethod
    def rounds(cls, own: Any) -> tuple[Round, ...]:
        """Return the rounds of the training in order, given the settings of the objective."""
        return (Round(),)

    @cached_property
    def own(self) -> S:
        """The settings of the objective."""
        return cast(S, self.settings.own)

    @property
    def network_level(self) -> float | None:
        """Noise level passed to the student's network when it generates a field; None: the level of its input."""
        return None

    @property
    def call_levels(self) -> tuple[float, ...]:
        """Falling noise levels of further calls, if the student is trained for several."""
        return ()

    @property
    def points(self) -> int:
        """Number of values of a whole joint field."""
        return len(self.teacher.channels) * math.prod(self.window.grid.shape)

    @abstractmethod
    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss of a micro-step.

        Args:
            network: The student. Its arguments are noisy fields, their noise levels, the condition and, if it differs from
                the noise level, the network level. It must be called exactly once with gradients, so that ZeRO sees one
                forward pass for each backward pass.
            batch: Samples of this rank.
            timer: Times the parts: `student` for the call, `residual` for the rest, and any further names.

        Returns:
            Loss, parts and fields; with physics, `penalised` adds the squared relative residual of each term.
        """

    def partner_losses(self, name: str, x_BCYX: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a trained partner.

        Args:
            name: Name of the partner.
            x_BCYX: Fields that `losses` returned.
            batch: Batch that the fields were computed from.

        Returns:
            Losses [B].

        Raises:
            NotImplementedError: When the objective has no trained partner.
        """
        raise NotImplementedError(f"{type(self).__name__} trains no partner {name!r}")

    def taught_by(self, denoiser: Any) -> Objective[S]:
        """Return a copy of the objective for a later round, whose teacher uses this denoiser."""
        return replace(self, teacher=replace(self.teacher, denoiser=denoiser))

    def sample(self, network: ConditionalDenoiser, eps_BCYX: Tensor, condition_BP: Tensor) -> Tensor:
        """Generate fields with one call of the student.

        Args:
            network: The student.
            eps_BCYX: Standard normal noise.
            condition_BP: Conditions of the samples, that is, their scaled parameters.

        Returns:
            Fields behind the hard constraints and the head, [B, C, y, X], in units of the model.
        """
        return self.finished(self.called(network, eps_BCYX, condition_BP), condition_BP)

    def called(self, network: ConditionalDenoiser, eps_BCYX: Tensor, condition_BP: Tensor) -> Tensor:
        """Return what one call of a network makes, before constraints and head; arguments and result as for `sample`."""
        return one_step(conditioned(network, condition_BP), eps_BCYX, self.teacher.noise.sigma_max, self.network_level)

    def finished(self, x_BCYX: Tensor, condition_BP: Tensor) -> Tensor:
        """Return a network's fields with the hard constraints applied and the steps of a head in training taken.

        Constraints that are steps go with the head.

        Args:
            x_BCYX: Fields of a student's network, in units of the model.
            condition_BP: Conditions of the samples.

        Returns:
            The student's samples, in units of the model.
        """
        names, steps, teacher = self.settings.constraints, self.settings.trained_head, self.teacher
        if not names and not steps:
            return x_BCYX
        units = teacher.normaliser
        fields = constrain(teacher.pde, self.window, names, units.decode(x_BCYX), smooth=steps == 0)
        params = params_of(teacher.pde, condition_BP)
        return units.encode(correct_rows(teacher.pde, self.window, fields, params, steps))

    def penalised(self, loss_B: Tensor, parts: Parts, x_BCYX: Tensor, batch: Batch) -> Learned:
        """Add the residual of the student's samples to a loss, unless `physics` is None.

        Args:
            loss_B: Loss of the distillation.
            parts: Parts of the loss, [B] each.
            x_BCYX: With physics, samples from one call, behind constraints and head (`finished`); without, any fields of
                the student, which are passed on.
            batch: Batch that the fields were computed from.

        Returns:
            The loss plus the weighted terms of the residual, the parts plus the squared residuals, and the samples.
        """
        if self.physics is None:
            return Learned(loss_B, parts, x_BCYX)
        squares = self.physics.squares(x_BCYX, batch.params_BP)
        return Learned(loss_B + self.penalty(squares, batch), parts | squares, x_BCYX)

    def penalty(self, squares: Parts, batch: Batch) -> Tensor:
        """Return what the residual adds to the loss of each sample, [B]; with physics only.

        Args:
            squares: Squared residuals by term, among other parts of a loss or alone.
            batch: Batch that the fields were computed from.

        Returns:
            Weighted residuals [B].
        """
        assert self.physics is not None
        return ramp(self.settings, batch.step) * self.physics.penalty(squares)


def ramp(settings: DistillSettings, step: int) -> float:
    """Return the factor of the weights at a step from `physics_from` on; it rises to 1 over `physics_ramp` of the steps."""
    begun = step - int(settings.physics_from * settings.steps)
    return min(1.0, (begun + 1) / max(1.0, settings.physics_ramp * settings.steps))
