"""The methods of a report: each makes n physical fields from the same noise, or from the truths. Knows no metrics.

Names: truth, trivial, shuffled, teacher-heun-K, teacher+smooth3, student-lambda0, student-lambda0+smooth3,
sample-then-solve, student.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pidscale.diffusion.solvers import calls
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, shuffled
from pidscale.student.load import Generator

SWEEPS = 3


@dataclass(frozen=True)
class Made:
    """What a method made: physical fields [n, C, Y, X], its network calls, and what it cost."""

    name: str
    fields_NCYX: Tensor
    nfe: int
    ms_per_sample: float
    train_seconds: float


def solutions(pde: Pde, grid: Grid, fields_NCYX: Tensor) -> tuple[Tensor, int]:
    """Each field with the generator's own numerical solution of its input, and how many input points were made legal."""
    solved = [pde.solve(one, grid) for one in fields_NCYX.double().numpy()]
    return torch.from_numpy(np.stack([fields for fields, _ in solved])), sum(raised for _, raised in solved)


def _timed(make: Callable[[Tensor], Tensor], eps_NCYX: Tensor, batch: int) -> tuple[Tensor, float]:
    """Fields made batch by batch, and the median milliseconds of a sample over the batches."""
    parts, costs = [], []
    for part in eps_NCYX.split(batch):
        began = time.perf_counter()
        parts.append(make(part).cpu())
        costs.append((time.perf_counter() - began) / len(part) * 1e3)
    return torch.cat(parts), float(np.median(costs))


def generate(name: str, generator: Generator, eps_NCYX: Tensor, batch: int, steps: int | None = None) -> Made:
    """Fields of a student, or of a teacher with `steps` Heun steps."""

    def make(eps: Tensor) -> Tensor:
        return generator.normaliser.decode(generator.generate(eps, steps))

    fields, cost = _timed(make, eps_NCYX.to(generator.device), batch)
    nfe = calls("heun", steps) if steps else 1
    return Made(name, fields, nfe, cost, float(generator.card["metrics"]["train_seconds"]))


def smoothed(made: Made, name: str, pde: Pde, grid: Grid) -> Made:
    """The same fields after a few sweeps of a smoother: what the l2 residual rewards without any learning."""
    began = time.perf_counter()
    fields = pde.smooth(made.fields_NCYX, SWEEPS, grid)
    cost = (time.perf_counter() - began) / len(fields) * 1e3
    return Made(name, fields, made.nfe, made.ms_per_sample + cost, made.train_seconds)


def solved(made: Made, solved_NCYX: Tensor, ms: float) -> Made:
    """Generated inputs with their numerical solution: what a solver adds to a generator of inputs."""
    fields = solved_NCYX.to(made.fields_NCYX.dtype)
    return Made("sample-then-solve", fields, made.nfe, made.ms_per_sample + ms, made.train_seconds)


def references(pde: Pde, grid: Grid, truth_NCYX: Tensor) -> Iterator[Made]:
    """The truths themselves, the same with a null solution, and inputs with the solution of another."""
    sets = {"truth": truth_NCYX, "trivial": pde.trivial(truth_NCYX), "shuffled": shuffled(pde, grid, truth_NCYX)}
    for name, fields in sets.items():
        yield Made(name, fields, 0, 0.0, 0.0)
