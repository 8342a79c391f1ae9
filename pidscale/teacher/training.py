"""A teacher in training: its network, its noise, and the gradients of a step. Knows no files and no students."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import Settings
from pidscale.dataset.problem import Problem
from pidscale.diffusion.denoiser import conditioned
from pidscale.diffusion.noise import Noise, noise_from, schedule_for, strongest_mode
from pidscale.engine.conflict import PartGradients
from pidscale.engine.ema import Ema
from pidscale.engine.schedule import MicroPlan, micro_plan
from pidscale.engine.slices import Reader, Slice, below
from pidscale.engine.spread import spread, window_for
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.parameters import params_of
from pidscale.records.read import ShardSet
from pidscale.run.preflight import model_description
from pidscale.teacher.objectives.base import MicroBatch, TeacherObjective
from pidscale.teacher.start import Start

MODE_SAMPLES = 1024  # largest number of training fields for measuring the strongest mode
MODE_VALUES = 2**25  # largest number of their values, which limits memory
LEAST_MODE_SAMPLES = 32  # smallest number of these fields, whatever their size


@dataclass
class Teacher:
    """A teacher in training, with everything that a step needs.

    Attributes:
        settings: Settings of the run.
        problem: Equation, grid, units and data.
        noise: The noise schedule.
        zero: The network and its optimiser.
        ema: Average of the weights, which is published.
        objective: Its loss.
        plan: Division of this rank's samples into micro-steps.
        mesh: The mesh of ranks.
    """

    settings: Settings
    problem: Problem
    noise: Noise
    zero: Zero
    ema: Ema
    objective: TeacherObjective[Any]
    plan: MicroPlan
    mesh: Mesh

    @property
    def window(self) -> Window:
        """Rows of this rank."""
        return self.objective.window

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Return noise [b, C, y, X] and noise levels [b] of this rank's samples at a step, drawn by sample counter."""
        batch = self.settings.teacher.global_batch
        seed = self.settings.run.seed
        mine = self.mesh.slice(batch)
        counters = torch.arange(step * batch + mine.start, step * batch + mine.stop)
        eps = seeds.normal(seed, "teacher/noise", counters, self.problem.shape, self.window.rows, self.mesh.device)
        level = seeds.normal(seed, "teacher/level", counters, (1, 1, 1), device=self.mesh.device).flatten()
        return eps, self.noise.training_level(level)

    def gradients(self, step: int, x_BCYX: Tensor, condition_BP: Tensor, timer: StepTimer) -> Tensor:
        """Accumulate the gradients of all micro-steps of a global batch.

        Args:
            step: Number of the step, from 0.
            x_BCYX: Clean fields of this rank's samples, restricted to its rows, in units of the model.
            condition_BP: Conditions of the samples, that is, their scaled parameters.
            timer: Times the parts: `data` for the random draws, `network` for forward and backward passes.

        Returns:
            This rank's share of each part of the loss, in the order of `objective.parts`.
        """
        with timer.section("data"):
            eps, sigma = self.draw(step)
        totals = torch.zeros(len(self.objective.parts), device=self.mesh.device)
        params_BP = params_of(self.problem.pde, condition_BP)
        progress = step / self.settings.teacher.steps
        combined = self.objective.conflict_free(self.objective.own)
        apart = PartGradients(self.zero, self.mesh, self.plan.accumulation) if combined else None
        network = self.zero if apart is None else self.zero.module  # DeepSpeed follows one backward pass of its own
        with timer.section("network"):
            for index, weight in zip(self.plan.indices, self.plan.weights, strict=True):
                denoiser = conditioned(network, condition_BP[index])
                own = MicroBatch(x_BCYX[index], sigma[index], eps[index], params_BP[index], progress)
                parts = torch.stack(self.objective.losses(denoiser, own), dim=1)
                shares = (weight[:, None] * parts).sum(dim=0) / self.settings.teacher.global_batch
                if apart is None:
                    self.zero.backward(shares.sum())
                else:
                    apart.backward(shares)
                totals = totals + shares.detach()
        return totals

    def slices(self) -> list[Slice]:
        """Return what this rank writes of a checkpoint. No messages."""
        return below("teacher", self.zero.slices() + below("average", self.ema.slices()))

    def restore(self, reader: Reader) -> None:
        """Take over the teacher of a checkpoint, whatever world size, stage and `space` wrote it. All ranks call it."""
        own = reader.below("teacher")
        self.zero.restore(own)
        self.ema.restore(own.below("average"))

    def averaged(self) -> PreconditionedNetwork:
        """Return a copy of the network with averaged weights, split for the rows of this rank, on its device."""
        s = self.settings
        with torch.device("meta"):  # shapes only: no weights are drawn
            plain = build_denoiser(describe(s, self.problem), self.noise.sigma_data, s.model.precision)
        plain.load_state_dict(self.ema.full_weights(), assign=True)
        return spread(plain, self.window).to(self.mesh.device).eval()


class LossMeans:
    """Means of the parts of a teacher's loss over steps.

    Args:
        teacher: The teacher.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._none = torch.zeros(len(teacher.objective.parts), device=teacher.mesh.device)
        self._sums = self._none
        self._steps = 0

    def add(self, parts: Tensor) -> None:
        """Add this rank's share of the parts at a step that was taken."""
        self._sums = self._sums + parts
        self._steps += 1

    def take(self) -> dict[str, float]:
        """Return the means since the last call by part, none without a step. One all-reduce; all ranks call it."""
        if not self._steps:
            return {}
        sums = self._teacher.mesh.sum(self._sums).tolist()
        means = {name: value / self._steps for name, value in zip(self._teacher.objective.parts, sums, strict=True)}
        self._sums = self._none
        self._steps = 0
        return means


def build(settings: Settings, problem: Problem, noise: Noise, mesh: Mesh, began_from: Start | None = None) -> Teacher:
    """Build a teacher, with the same weights on every rank. All ranks call it.

    Args:
        settings: Settings of the run.
        problem: Equation, grid, units and data.
        noise: The noise schedule.
        mesh: The mesh of ranks.
        began_from: Teacher that provides the initial weights; None for random weights.

    Returns:
        The teacher before its first step.
    """
    torch.manual_seed(settings.run.seed)
    s, t = settings.model, settings.teacher
    window = rows_of(settings, problem, mesh)
    model = build_denoiser(describe(settings, problem), noise.sigma_data, s.precision, s.recompute)
    if began_from is not None:
        model.load_state_dict(began_from.weights())
    model = spread(model, window).to(mesh.device)
    plan = micro_plan(t.global_batch, t.micro_batch, mesh)
    stage = settings.cluster.zero_stage
    zero = Zero(model, ZeroSettings(stage, plan.micro, plan.accumulation, t.clip, settings.cluster.deepspeed), mesh)
    objective = t.needs(t, problem, noise, window)
    return Teacher(settings, problem, noise, zero, Ema(zero.module, stage, mesh, t.ema), objective, plan, mesh)


def describe(settings: Settings, problem: Problem) -> dict[str, Any]:
    """Return the full description of the network."""
    return model_description(settings, problem.shape[0], len(problem.pde.varying))


def rows_of(settings: Settings, problem: Problem, mesh: Mesh) -> Window:
    """Return the window of this rank."""
    return window_for(describe(settings, problem), problem.grid, mesh.space)


def noise_for(
    settings: Settings,
    problem: Problem,
    shards: ShardSet,
    mesh: Mesh,
    began_from: Start | None = None,
    stored: Mapping[str, Any] | None = None,
) -> Noise:
    """Return the noise schedule: values from the settings first, then from the initial teacher, then chosen from the data.

    A schedule is chosen once in a run: a resumed run takes that of its checkpoint, all ranks that of the first one. Raises a
    ValueError if the schedule would lose the strongest mode of the data.

    Args:
        settings: Settings of the run.
        problem: Equation, grid, units and data.
        shards: Training fields, some of which are read.
        mesh: The mesh of ranks.
        began_from: Teacher that provides the initial weights, if there is one.
        stored: The schedule of the checkpoint that the run resumes from, as `Noise.describe` returns it, if there is one.

    Returns:
        The schedule, the same on every rank.
    """
    if stored is not None:
        return noise_from(stored)
    t = settings.teacher
    window = rows_of(settings, problem, mesh)
    most = max(LEAST_MODE_SAMPLES, min(MODE_SAMPLES, MODE_VALUES // math.prod(problem.shape)))
    fields = torch.from_numpy(shards.read(range(min(most, len(shards))), window.rows))
    mode = strongest_mode(problem.normaliser.encode(fields.to(mesh.device)), total=window.total)
    own = {"sigma_max": t.sigma_max, "p_mean": t.p_mean, "p_std": t.p_std}
    if began_from is not None:
        own = {key: getattr(began_from.card.noise, key, None) if value is None else value for key, value in own.items()}
    chosen = schedule_for(t.noise, mode, min(problem.grid.shape), **own)
    return noise_from(mesh.broadcast(chosen.describe()))  # devices of several kinds may differ in the last bits
