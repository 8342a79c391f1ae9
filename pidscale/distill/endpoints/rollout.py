"""Teacher endpoints from counters: counter -> noise -> a fixed number of solver steps -> clean field. Knows no ranks.

Endpoints are made in chunks of a fixed size, which begin at multiples of it, so that their bits depend neither on the number
requested at once nor on how many workers share a batch.
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
from pidscale.generator.artifact import TEACHER, read_card
from pidscale.generator.card import Kind
from pidscale.generator.generator import Generator, Teacher
from pidscale.generator.load import check_fits, load_teacher, outline_teacher
from pidscale.pde.parameters import draw_params
from pidscale.run.places import fetch_teacher, home_of

STREAM = "distill/endpoint"


@dataclass(frozen=True)
class Rollout:
    """A frozen teacher with a solver. All ranks must call it equally often; a split teacher makes the rows of its rank.

    Attributes:
        teacher: The teacher.
        solver: Solver of the probability-flow ODE.
        steps: Number of solver steps.
        chunk: Number of samples per call of the teacher.
        seed: Random seed of the run.
        stream: Random stream of the noise and the parameters.
        rows: Rows of this rank; None for all rows.
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
        """Return the varying parameters [B, P] of these counters, on the CPU."""
        return draw_params(self.teacher.pde, self.seed, self.stream, counters)

    def by(self, solver: str, steps: int, stream: str) -> Rollout:
        """Return a copy with another solver, number of steps and random stream."""
        return replace(self, solver=solver, steps=steps, stream=stream)

    def endpoints(self, counters: Tensor) -> Endpoints:
        """Solve the probability-flow ODE from the noise of each counter.

        Args:
            counters: Counters of the endpoints. Chunks of which they are a part are made whole, and the rest is dropped.

        Returns:
            The endpoints.
        """
        levels = self.teacher.noise.levels(self.steps)
        places, runs = torch.unique_consecutive(counters // self.chunk, return_counts=True)
        fields: list[Tensor] = []
        sums: list[Tensor] = []
        with torch.no_grad():
            for place, wanted in zip(places.tolist(), counters.split(runs.tolist()), strict=True):
                whole = torch.arange(place * self.chunk, (place + 1) * self.chunk)
                eps = self.eps(whole)
                made = integrate(self.teacher.conditioned_on(self.params(whole)), eps, levels, self.solver)
                own = (wanted - place * self.chunk).to(eps.device)
                sums.append(checksum(eps[own]))
                fields.append(made[own])
        return Endpoints(counters, self.params(counters), torch.cat(fields), torch.cat(sums))


def open_teacher(settings: Settings, folder: Path, problem: Problem, device: torch.device | None) -> Teacher:
    """Load the frozen teacher.

    Args:
        settings: Settings of the run; `distill.teacher` replaces the run's own teacher.
        folder: Folder of the run.
        problem: Equation and grid that the teacher must have.
        device: Device of the teacher; None: its card and shapes are read, and no weights.

    Returns:
        The teacher.

    Raises:
        UserError: When the teacher is missing, is a student, or has another equation or grid.
    """
    path = fetch_teacher(settings, folder)
    if not path.exists():
        shown = path if settings.distill.teacher else home_of(settings, folder).where(TEACHER)
        raise UserError(f"{shown}: no teacher there; run `pidscale train` first, or set distill.teacher")
    kind = read_card(path).kind
    if kind is not Kind.TEACHER:
        raise UserError(f"{path}: holds a {kind}, expected a teacher; set distill.teacher")
    teacher = outline_teacher(path) if device is None else load_teacher(path, device)
    teacher.denoiser.precision = settings.distill.teacher_precision
    check_fits(teacher, path, problem.pde, problem.grid, "set distill.teacher or the pde")
    return teacher


def open_rollout(settings: Settings, teacher: Generator, rows: slice | None = None) -> Rollout:
    """Return the teacher with the solver, chunk size and seed that the settings specify for endpoints."""
    d = settings.distill
    return Rollout(teacher, d.solver, d.solver_steps, d.chunk, settings.run.seed, rows=rows)
