"""The students of one distillation: the student itself and, on request, its lambda = 0 twin, on the same endpoints.

Knows no Ray and no files but those of a checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pidscale.config import Settings
from pidscale.diffusion.solvers import one_step
from pidscale.distill.objectives import TERMS, Physics, piddm
from pidscale.distill.rollout import Endpoints
from pidscale.engine.ema import Ema
from pidscale.engine.schedule import MicroPlan
from pidscale.engine.spread import spread
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.models.precondition import Denoiser, conditioned
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import condition
from pidscale.pde.constraints import constrain
from pidscale.student.load import Generator


@dataclass
class Arm:
    """One student in training. physics None: distillation alone. seconds: spent on its steps."""

    name: str
    settings: Settings
    teacher: Generator
    physics: Physics | None
    window: Window
    plan: MicroPlan
    mesh: Mesh
    zero: Zero
    ema: Ema
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def output(self, x_BCYX: Tensor) -> Tensor:
        """The network's sample under the hard constraints, in units of the model."""
        names, teacher = self.settings.distill.constraints, self.teacher
        if not names:
            return x_BCYX
        units = teacher.normaliser
        return units.encode(constrain(teacher.pde, self.window, names, units.decode(x_BCYX)))

    def gradients(self, eps_BCYX: Tensor, endpoints: Endpoints, timer: StepTimer) -> None:
        """All micro-steps of a global batch from this rank's noise and endpoints; parts of the loss are added up."""
        d, told = self.settings.distill, condition(self.teacher.pde, endpoints.params_BP).to(self.mesh.device)
        for index, weight in zip(self.plan.indices, self.plan.weights, strict=True):
            with timer.part("student"):
                x = one_step(conditioned(self.zero, told[index]), eps_BCYX[index], self.teacher.noise.sigma_max)
                x = self.output(x)
            with timer.part("residual"):
                target, params = endpoints.fields_BCYX[index], endpoints.params_BP[index]
                loss, parts = piddm(x, target, self.physics, d.huber, d.power, params, self.window)
            with timer.part("student"):
                self.zero.backward((weight * loss).sum() / d.global_batch)
            for name, values in {"loss": loss, **parts}.items():
                share = (weight * values.detach()).sum() / d.global_batch
                self.sums[name] = self.sums.get(name, torch.zeros_like(share)) + share
        self.steps += 1

    def take_means(self) -> dict[str, float]:
        """Means over the global batches since the last call: loss, match, power, and the residuals as root mean squares."""
        values = self.mesh.sum(torch.stack(list(self.sums.values()))) / max(1, self.steps)
        means = dict(zip(self.sums, values.tolist(), strict=True))
        self.sums, self.steps = {}, 0
        return {k: v**0.5 if k in TERMS else v for k, v in means.items()}

    def averaged(self) -> Denoiser:
        """A copy of the network with the averaged weights, for the rows of this rank, on its device."""
        plain = plain_copy(self.teacher, self.settings)
        plain.load_state_dict(self.ema.whole())
        return spread(plain, self.window).to(self.mesh.device).eval()

    def save(self, folder: Path, average: dict[str, Tensor]) -> None:
        """Write this rank's files of a checkpoint."""
        self.zero.save(folder, f"zero-{self.name}")
        if self.mesh.first:
            save_file(average, folder / f"ema-{self.name}.safetensors")

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote."""
        self.zero.load(folder, f"zero-{self.name}")
        self.ema.restore(load_file(folder / f"ema-{self.name}.safetensors"))


def fork(arm: Arm, name: str, folder: Path) -> Arm:
    """A second arm with the same weights, optimiser state and average as the first; it goes on without physics.

    folder: where DeepSpeed's files pass through; all ranks see it, and it is gone afterwards.
    """
    arm.zero.save(folder, "fork")
    arm.mesh.barrier()
    twin = build_arm(name, arm.settings, arm.teacher, None, arm.window, arm.plan, arm.mesh)
    twin.zero.load(folder, "fork")
    for key, piece in twin.ema.pieces.items():
        piece.copy_(arm.ema.pieces[key])
    twin.seconds = arm.seconds
    arm.mesh.barrier()
    if arm.mesh.first:
        shutil.rmtree(folder)
    return twin


def plain_copy(teacher: Generator, settings: Settings) -> Denoiser:
    """A trainable network of the teacher's architecture."""
    s = settings.model
    return build_denoiser(teacher.card["architecture"], teacher.noise.sigma_data, s.precision, s.recompute)


def build_arm(
    name: str,
    settings: Settings,
    teacher: Generator,
    physics: Physics | None,
    window: Window,
    plan: MicroPlan,
    mesh: Mesh,
) -> Arm:
    """A student that starts from the teacher's weights."""
    model = plain_copy(teacher, settings)
    model.load_state_dict(teacher.denoiser.state_dict())
    model = spread(model, window).to(mesh.device)
    d, stage = settings.distill, settings.cluster.zero_stage
    zero = Zero(model, ZeroSettings(stage, plan.micro, plan.accumulation, d.clip, settings.cluster.deepspeed), mesh)
    return Arm(name, settings, teacher, physics, window, plan, mesh, zero, Ema(zero.module, stage, mesh, d.ema))
