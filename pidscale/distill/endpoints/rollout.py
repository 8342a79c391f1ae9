"""Teacher endpoints from counters: counter -> noise -> a fixed number of solver steps -> clean field. Knows no ranks.

Endpoints are made in chunks of a fixed size, so that their bits do not depend on how many are asked for at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import Settings, UserError
from pidscale.dataset.problem import Problem
from pidscale.diffusion.solvers import integrate
from pidscale.distill.endpoints.endpoint import Endpoints, checksum
from pidscale.generator.artifact import read_card
from pidscale.generator.card import Kind
from pidscale.generator.generator import Generator, Teacher
from pidscale.generator.load import check_fits, load_teacher
from pidscale.pde.parameters import draw_params
from pidscale.run.phases import teacher_folder

STREAM = "distill/endpoint"


@dataclass(frozen=True)
class Rollout:
    """A frozen teacher with a solver. All ranks call it equally often; one that is spread makes the rows of its rank.

    Attributes:
        teacher: The teacher.
        solver: Of the probability-flow ODE.
        steps: Solver steps.
        chunk: Samples in one call of the teacher.
        seed: The run's.
        stream: Names the noise and the parameters.
        rows: Rows of this rank; None: all.
    """

    teacher: Generator
    solver: str
    steps: int
    chunk: int
    seed: int
    stream: str = STREAM
    rows: slice | None = None

    def eps(self, counters: Tensor) -> Tensor:
        """Return the noise [B, C, y, X] of these counters."""
        shape = (len(self.teacher.channels), *self.teacher.grid.shape)
        return seeds.normal(self.seed, self.stream, counters, shape, self.rows, device=self.teacher.device)

    def params(self, counters: Tensor) -> Tensor:
        """Return the parameters [B, P] that vary from sample to sample, of these counters, on the CPU."""
        return draw_params(self.teacher.pde, self.seed, self.stream, counters)

    def by(self, solver: str, steps: int, stream: str) -> Rollout:
        """Return the same teacher with another solver, on noise of another stream."""
        return replace(self, solver=solver, steps=steps, stream=stream)

    def endpoints(self, counters: Tensor) -> Endpoints:
        """Solve from the noise of each counter.

        Args:
            counters: Which endpoints; their number is a multiple of `chunk`.

        Returns:
            The endpoints.

        Raises:
            ValueError: The number of counters is no such multiple.
        """
        if len(counters) % self.chunk:
            raise ValueError(f"{len(counters)} counters are no multiple of the chunk {self.chunk}")
        levels = self.teacher.noise.levels(self.steps)
        params = self.params(counters)
        fields: list[Tensor] = []
        sums: list[Tensor] = []
        with torch.no_grad():
            for part, own in zip(counters.split(self.chunk), params.split(self.chunk), strict=True):
                eps = self.eps(part)
                sums.append(checksum(eps))
                fields.append(integrate(self.teacher.conditioned_on(own), eps, levels, self.solver))
        return Endpoints(counters, params, torch.cat(fields), torch.cat(sums))


def open_teacher(settings: Settings, folder: Path, problem: Problem, device: torch.device) -> Teacher:
    """Load the frozen teacher.

    Args:
        settings: Those of the run; distill.teacher names another folder than the run's own.
        folder: The run's folder.
        problem: Equation and grid that it has to be of.
        device: Where it computes.

    Returns:
        The teacher.

    Raises:
        UserError: There is none, it is a student, or it is of another equation or grid.
    """
    path = teacher_folder(settings, folder)
    if not path.exists():
        raise UserError(f"{path}: no teacher there; run `pidscale train` first, or set distill.teacher")
    kind = read_card(path).kind
    if kind is not Kind.TEACHER:
        raise UserError(f"{path}: holds a {kind}, expected a teacher; set distill.teacher")
    teacher = load_teacher(path, device)
    teacher.denoiser.precision = settings.distill.teacher_precision
    check_fits(teacher, path, problem.pde, problem.grid, "set distill.teacher or the pde")
    return teacher


def open_rollout(settings: Settings, teacher: Generator, rows: slice | None = None) -> Rollout:
    """Return the teacher as the settings have it make endpoints."""
    d = settings.distill
    return Rollout(teacher, d.solver, d.solver_steps, d.chunk, settings.run.seed, rows=rows)
