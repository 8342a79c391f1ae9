"""The students of one distillation: the student itself and, on request, its lambda = 0 twin, on the same endpoints.

Knows no Ray and no files but those of a checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pidscale.config import Settings
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import Objective
from pidscale.distill.objectives.dmd import Matching
from pidscale.engine.checkpoint import unfinished_folder
from pidscale.engine.ema import Ema
from pidscale.engine.schedule import MicroPlan
from pidscale.engine.spread import spread
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.generator.generator import Generator
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.parallel.mesh import Mesh
from pidscale.pde.terms import MEASURES


@dataclass
class Arm:
    """One student in training. seconds: spent on its steps."""

    name: str
    settings: Settings
    objective: Objective
    plan: MicroPlan
    mesh: Mesh
    zero: Zero
    ema: Ema
    critic: Zero | None = None
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0  # that the sums are of
    before: dict[str, Tensor] = field(default_factory=dict)  # the sums without the step at hand

    @property
    def bytes(self) -> int:
        """Of what `save` writes, the average apart, all ranks together."""
        return self.zero.bytes + (0 if self.critic is None else self.critic.bytes)

    def begin(self, objective: Objective) -> None:
        """Go on with another objective, whose means are its own."""
        self.objective, self.sums, self.steps = objective, {}, 0

    def gradients(self, batch: Batch, timer: StepTimer) -> None:
        """All micro-steps of a global batch from this rank's samples of it; parts of the loss are added up."""
        count, self.before = self.settings.distill.global_batch, dict(self.sums)
        for index, weight in zip(self.plan.indices, self.plan.weights, strict=True):
            part = batch.part(index)
            learned = self.objective.losses(self.zero, part, timer)
            parts = {"loss": learned.loss, **learned.parts}
            with timer.section("student"):
                self.zero.backward((weight * learned.loss).sum() / count)
            if self.critic is not None and isinstance(self.objective, Matching):
                with timer.section("critic"):
                    parts["critic"] = self.objective.critic_losses(learned.fields, part)
                    self.critic.backward((weight * parts["critic"]).sum() / count)
            for name, values in parts.items():
                share = (weight * values.detach()).sum() / count
                self.sums[name] = self.sums.get(name, torch.zeros_like(share)) + share

    def update(self, rate: float, step: int) -> dict[str, tuple[float, bool]]:
        """Take the step that the gradients ask for; returns norm and whether it was taken, of the student and of its critic.

        One that one of them could not take leaves no trace in the average of the weights, nor in the means of the loss.
        """
        norms = {self.name: self.zero.step(rate)}
        if norms[self.name][1]:
            self.ema.update(step)
        if self.critic is not None:
            norms[f"{self.name}'s critic"] = self.critic.step(rate)
        if all(applied for _, applied in norms.values()):
            self.steps += 1
        else:
            self.sums = self.before
        return norms

    def take_means(self) -> dict[str, float]:
        """Means over the global batches since the last call: loss, match, power, and the residuals as root mean squares.

        Empty where no step was taken.
        """
        if not self.steps:
            return {}
        values = self.mesh.sum(torch.stack(list(self.sums.values()))) / self.steps
        means = dict(zip(self.sums, values.tolist(), strict=True))
        self.sums, self.steps = {}, 0
        return {k: v**0.5 if k in MEASURES else v for k, v in means.items()}

    def averaged(self) -> PreconditionedNetwork:
        """A copy of the network with the averaged weights, for the rows of this rank, on its device."""
        plain = plain_copy(self.objective.teacher, self.settings)
        plain.load_state_dict(self.ema.full_weights())
        return spread(plain, self.objective.window).to(self.mesh.device).eval()

    def save(self, folder: Path, average: dict[str, Tensor]) -> None:
        """Write this rank's files of a checkpoint."""
        self.zero.save(folder, f"zero-{self.name}")
        if self.critic is not None:
            self.critic.save(folder, f"critic-{self.name}")
        if self.mesh.first:
            save_file(average, folder / f"ema-{self.name}.safetensors")

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote."""
        self.zero.load(folder, f"zero-{self.name}")
        if self.critic is not None:
            self.critic.load(folder, f"critic-{self.name}")
        self.ema.restore(load_file(folder / f"ema-{self.name}.safetensors"))


def fork(arm: Arm, name: str, root: Path, step: int) -> Arm:
    """A second arm with the same weights, optimiser state and average as the first; it goes on without physics.

    DeepSpeed's files pass through a folder of `root` that all ranks see, as those of a checkpoint of `step` do.
    """
    with unfinished_folder(root, step, arm.mesh, arm.bytes) as folder:
        arm.zero.save(folder, "fork")
        if arm.critic is not None:
            arm.critic.save(folder, "fork-critic")
        arm.mesh.barrier()
        twin = build_arm(name, arm.settings, replace(arm.objective, physics=None), arm.plan, arm.mesh)
        twin.zero.load(folder, "fork")
        if twin.critic is not None:
            twin.critic.load(folder, "fork-critic")
        for key, piece in twin.ema.pieces.items():
            piece.copy_(arm.ema.pieces[key])
        twin.seconds = arm.seconds
        arm.mesh.barrier()
    if arm.mesh.first:
        shutil.rmtree(folder)
    return twin


def plain_copy(teacher: Generator, settings: Settings) -> PreconditionedNetwork:
    """A trainable network of the teacher's architecture."""
    s = settings.model
    return build_denoiser(teacher.card.architecture, teacher.noise.sigma_data, s.precision, s.recompute)


def build_arm(name: str, settings: Settings, objective: Objective, plan: MicroPlan, mesh: Mesh) -> Arm:
    """A student that starts from the teacher's weights, or from new ones, the same on every rank; and its critic, if any.

    A critic always starts from the teacher's.
    """
    d, stage = settings.distill, settings.cluster.zero_stage

    def trained(start: str) -> Zero:
        torch.manual_seed(settings.run.seed)
        model = plain_copy(objective.teacher, settings)
        if start == "teacher":
            model.load_state_dict(objective.teacher.denoiser.state_dict())
        model = spread(model, objective.window).to(mesh.device)
        zero = ZeroSettings(stage, plan.micro, plan.accumulation, d.clip, settings.cluster.deepspeed)
        return Zero(model, zero, mesh)

    zero, critic = trained(d.start), None
    if isinstance(objective, Matching):
        critic = trained("teacher")
        objective = replace(objective, critic=critic)
    return Arm(name, settings, objective, plan, mesh, zero, Ema(zero.module, stage, mesh, d.ema), critic)
