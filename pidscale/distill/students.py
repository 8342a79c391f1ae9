"""The students of one distillation: the student itself and, on request, the control, on the same endpoints.

Knows no Ray and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pidscale.config import Settings
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.multipliers import Multipliers
from pidscale.distill.objectives.base import Objective, Partner
from pidscale.distill.objectives.physics import Physics
from pidscale.distill.partners import AveragedNetwork, whole_slices
from pidscale.engine.conflict import PartGradients
from pidscale.engine.ema import Ema
from pidscale.engine.schedule import MicroPlan
from pidscale.engine.slices import Reader, Slice, below
from pidscale.engine.spread import spread
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.generator.generator import Generator
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.terms import MEASURES

_PARTNERS = "partners"  # names in a checkpoint, below the student's
_TEACHER = "teacher"


@dataclass
class Student:
    """One student in training.

    Attributes:
        name: The folder that it is published in.
        settings: Those of the run.
        objective: Its loss, with the networks beside it.
        plan: How this rank's samples are cut into micro-steps.
        mesh: The ranks.
        zero: The network.
        ema: The average that is published.
        partners: The networks beside it, by name.
        teacher: The teacher of a later round; None in the first.
        seconds: Spent on its steps.
        sums: Sums of the parts of the loss over the steps since `take_means`.
        steps: How many steps the sums are of.
        before: The sums without the step at hand.
        multipliers: Weights of the residual that follow it; None where they are fixed.
    """

    name: str
    settings: Settings
    objective: Objective
    plan: MicroPlan
    mesh: Mesh
    zero: Zero
    ema: Ema
    partners: dict[str, Zero | AveragedNetwork] = field(default_factory=dict)
    teacher: PreconditionedNetwork | None = None
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    before: dict[str, Tensor] = field(default_factory=dict)
    multipliers: Multipliers | None = None

    @property
    def window(self) -> Window:
        """The rows of this rank."""
        return self.objective.window

    def trained(self) -> Iterator[tuple[str, Zero]]:
        """Yield the networks that are trained, by the name that a message gives them: its own, then its partners'."""
        yield self.name, self.zero
        for name, partner in self.partners.items():
            if isinstance(partner, Zero):
                yield f"{self.name}'s {name}", partner

    def obey(self, physics: Physics, kept: Mapping[str, Any] | None = None) -> None:
        """Take the residual into the loss from the next step on; means begin again.

        Args:
            physics: The residual.
            kept: The multipliers of a checkpoint.
        """
        d = self.settings.distill
        weights = {k: weight for k, weight in physics.weights.items() if weight > 0}
        if d.combine == "lagrangian" and weights:
            self.multipliers = Multipliers(d.goal, weights)
            if kept is not None:
                self.multipliers.restore(kept)
            physics = replace(physics, weights=physics.weights | self.multipliers.weights)
        self.objective = replace(self.objective, physics=physics)
        self.sums = {}
        self.steps = 0

    def next_round(self) -> None:
        """Begin a later round: its own average so far becomes the teacher of its losses. All ranks call it."""
        self._taught_by(self.averaged())

    def _taught_by(self, teacher: PreconditionedNetwork) -> None:
        self.teacher = teacher.requires_grad_(False)
        self.objective = self.objective.taught_by(self.teacher)

    def gradients(self, batch: Batch, timer: StepTimer) -> None:
        """Take all micro-steps of a global batch, and add up the parts of the loss.

        Args:
            batch: This rank's samples of the global batch.
            timer: Times the parts of the objective, and each partner that is trained by its name.
        """
        d = self.settings.distill
        count = d.global_batch
        self.before = dict(self.sums)
        combined = d.combine == "conflict_free" and self.objective.physics is not None
        apart = PartGradients(self.zero, self.mesh, self.plan.accumulation) if combined else None
        network = self.zero if apart is None else self.zero.module
        for index, weight in zip(self.plan.indices, self.plan.weights, strict=True):
            part = batch.part(index)
            learned = self.objective.losses(network, part, timer)
            parts = {"loss": learned.loss, **learned.parts}
            with timer.section("student"):
                if apart is None:
                    self.zero.backward((weight * learned.loss).sum() / count)
                else:
                    penalty = self.objective.penalty(learned.parts, part)
                    both = torch.stack([learned.loss - penalty, penalty])
                    apart.backward((weight * both).sum(dim=1) / count)
            for name, partner in self.partners.items():
                if isinstance(partner, Zero):
                    with timer.section(name):
                        parts[name] = self.objective.partner_losses(name, learned.fields, part)
                        partner.backward((weight * parts[name]).sum() / count)
            for name, values in parts.items():
                share = (weight * values.detach()).sum() / count
                self.sums[name] = self.sums.get(name, torch.zeros_like(share)) + share

    def update(self, rate: float, step: int) -> dict[str, tuple[float, bool]]:
        """Take the step that the gradients ask for.

        A step that one of the networks could not take leaves no trace in the averages of the weights, nor in the means of the
        loss.

        Args:
            rate: The learning rate.
            step: The step, from 0.

        Returns:
            Norm of the gradient and whether the step was taken, by network as `trained` names them.
        """
        norms = {name: network.step(rate) for name, network in self.trained()}
        if norms[self.name][1]:
            self.ema.update(step)
            for partner in self.partners.values():
                if isinstance(partner, AveragedNetwork):
                    partner.follow(self.zero)
        if all(applied for _, applied in norms.values()):
            self.steps += 1
            self._follow_residual()
        else:
            self.sums = self.before
        return norms

    def _follow_residual(self) -> None:
        """Give the residual the weights that follow from its means of the step. One all-reduce of 4 bytes a term."""
        physics = self.objective.physics
        if self.multipliers is None or physics is None:
            return
        names = list(self.multipliers.weights)
        of_step = [self.sums[name] - self.before.get(name, 0.0) for name in names]
        squares = dict(zip(names, self.mesh.sum(torch.stack(of_step)).tolist(), strict=True))
        self.multipliers.follow({name: squares[name] / physics.scales[name] for name in names})
        self.objective = replace(
            self.objective, physics=replace(physics, weights=physics.weights | self.multipliers.weights)
        )

    def take_means(self) -> dict[str, float]:
        """Return the means over the global batches since the last call; empty where no step was taken.

        Returns:
            The loss and its parts, residuals as root mean squares. One all-reduce of 8 bytes a part.
        """
        if not self.steps:
            return {}
        values = self.mesh.sum(torch.stack(list(self.sums.values()))) / self.steps
        means = dict(zip(self.sums, values.tolist(), strict=True))
        self.sums = {}
        self.steps = 0
        return {k: v**0.5 if k in MEASURES else v for k, v in means.items()}

    def averaged(self) -> PreconditionedNetwork:
        """Return a copy of the network with the averaged weights, for the rows of this rank, on its device."""
        return self._network(self.ema.full_weights())

    def _network(self, weights: dict[str, Tensor]) -> PreconditionedNetwork:
        with torch.device("meta"):  # shapes only: no weights are drawn
            plain = plain_copy(self.objective.teacher, self.settings)
        plain.load_state_dict(weights, assign=True)
        return spread(plain, self.window).to(self.mesh.device).eval()

    def slices(self) -> list[Slice]:
        """Return what this rank writes of a checkpoint, below the student's name. No messages."""
        found = self.zero.slices() + below("average", self.ema.slices())
        for name, partner in self.partners.items():
            found += below(f"{_PARTNERS}/{name}", partner.slices())
        if self.teacher is not None:
            found += below(_TEACHER, whole_slices(self.teacher, self.mesh))
        return below(self.name, found)

    def restore(self, reader: Reader) -> None:
        """Take over the student of a checkpoint, whatever world size, stage and `space` wrote it. All ranks call it."""
        own = reader.below(self.name)
        self.zero.restore(own)
        self.ema.restore(own.below("average"))
        for name, partner in self.partners.items():
            partner.restore(own.below(f"{_PARTNERS}/{name}"))
        if own.holds(f"{_TEACHER}/"):
            self._taught_by(self._network(own.below(_TEACHER).wholes()))


def fork(student: Student, name: str) -> Student:
    """Return a control with the weights, optimiser state, average and partners of a student, copied in memory.

    Args:
        student: The student, which has no physics as yet; all ranks call it.
        name: The name of the control.

    Returns:
        The control.
    """
    bare = replace(student.objective, physics=None)
    control = build_student(name, student.settings, bare, student.plan, student.mesh)
    control.zero.copy_from(student.zero)
    control.ema.copy_from(student.ema)
    for key, partner in control.partners.items():
        partner.copy_from(student.partners[key])
    control.teacher = student.teacher
    control.seconds = student.seconds
    return control


def plain_copy(teacher: Generator, settings: Settings) -> PreconditionedNetwork:
    """Return a trainable network of the teacher's architecture."""
    s = settings.model
    return build_denoiser(teacher.card.architecture, teacher.noise.sigma_data, s.precision, s.recompute)


def build_student(name: str, settings: Settings, objective: Objective, plan: MicroPlan, mesh: Mesh) -> Student:
    """Build a student and the networks beside it, the same on every rank.

    Args:
        name: The folder that it is published in.
        settings: Those of the run; distill.start says which weights it begins with.
        objective: Its loss, without networks beside it as yet.
        plan: How this rank's samples are cut into micro-steps.
        mesh: The ranks.

    Returns:
        The student.
    """
    d = settings.distill
    stage = settings.cluster.zero_stage

    def network(start: str) -> PreconditionedNetwork:
        torch.manual_seed(settings.run.seed)
        model = plain_copy(objective.teacher, settings)
        if start == "teacher":
            model.load_state_dict(objective.teacher.denoiser.state_dict())
        return spread(model, objective.window).to(mesh.device)

    def trained(start: str) -> Zero:
        zero = ZeroSettings(stage, plan.micro, plan.accumulation, d.clip, settings.cluster.deepspeed)
        return Zero(network(start), zero, mesh)

    def beside(partner: Partner) -> Zero | AveragedNetwork:
        if partner.rate is None:
            return trained("teacher")
        return AveragedNetwork(network(d.start), partner.rate, mesh)

    zero = trained(d.start)
    partners = {partner.name: beside(partner) for partner in objective.partners(objective.own)}
    ema = Ema(zero.module, stage, mesh, d.ema)
    return Student(name, settings, replace(objective, networks=partners), plan, mesh, zero, ema, partners)
