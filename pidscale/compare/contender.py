"""The methods of a report: each makes n physical fields from the same noise, or from the truths. Knows no metrics.

Names: truth, trivial, shuffled, teacher-heun-K, teacher+smooth3, student-lambda0, student-lambda0+smooth3,
sample-then-solve, student, student-N of more calls, student-refined.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pidscale.diffusion.solvers import SOLVERS
from pidscale.generator.load import Generator
from pidscale.generator.more_calls import more_calls
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, Samples, shuffled

SWEEPS = 3


@dataclass(frozen=True)
class Made:
    """What a method made: samples in physical units, its network calls, and what it cost."""

    name: str
    samples: Samples
    nfe: int
    ms_per_sample: float
    train_seconds: float


def solutions(pde: Pde, grid: Grid, samples: Samples) -> tuple[Tensor, int]:
    """Each field with the generator's own numerical solution of its input, and how many input points were made legal."""
    solved = [
        pde.solve(one.numpy(), grid, params.tolist())
        for one, params in zip(samples.fields.double(), samples.params, strict=True)
    ]
    return torch.from_numpy(np.stack([fields for fields, _ in solved])), sum(raised for _, raised in solved)


def _timed(
    make: Callable[[Tensor, Tensor], Tensor], eps_NCYX: Tensor, params_NP: Tensor, batch: int
) -> tuple[Tensor, float]:
    """Fields made batch by batch, and the median milliseconds of a sample over the batches."""
    parts, costs = [], []
    for eps, params in zip(eps_NCYX.split(batch), params_NP.split(batch), strict=True):
        began = time.perf_counter()
        parts.append(make(eps, params).cpu())
        costs.append((time.perf_counter() - began) / len(eps) * 1e3)
    return torch.cat(parts), float(np.median(costs))


def generate(
    name: str, generator: Generator, eps_NCYX: Tensor, params_NP: Tensor, batch: int, steps: int | None = None
) -> Made:
    """Fields of a student, or of a teacher with `steps` Heun steps."""

    def make(eps: Tensor, params: Tensor) -> Tensor:
        return generator.physical(eps, params, steps)

    fields, cost = _timed(make, eps_NCYX.to(generator.device), params_NP, batch)
    nfe = SOLVERS["heun"].calls(steps) if steps else 1
    return Made(name, Samples(fields, params_NP), nfe, cost, float(generator.card["metrics"]["train_seconds"]))


def generate_more(name: str, student: Generator, eps_NCYX: Tensor, params_NP: Tensor, batch: int, nfe: int) -> Made:
    """Fields of a student and of the teacher that is with it, in `nfe` network calls."""
    again = student.eps(range(len(eps_NCYX)), 0, "evaluate/again")
    noise = torch.stack([eps_NCYX.to(student.device), again], dim=1)

    def make(both: Tensor, params: Tensor) -> Tensor:
        return student.finished(more_calls(student, both[:, 0], both[:, 1], params, nfe - 1))

    fields, cost = _timed(make, noise, params_NP, batch)
    return Made(name, Samples(fields, params_NP), nfe, cost, float(student.card["metrics"]["train_seconds"]))


def refined(name: str, student: Generator, n: int, seed: int, batch: int, steps: int) -> Made:
    """A student's own samples with less residual, each after at most `steps` evaluations with their gradient."""
    began = time.perf_counter()
    found = student.refine(n, seed, steps, batch=batch, stream="evaluate")
    cost = (time.perf_counter() - began) / n * 1e3
    samples = Samples(student.join(found.fields), student.params(range(n), seed, "evaluate"))
    calls = round(float(found.calls.double().mean()))
    return Made(name, samples, calls, cost, float(student.card["metrics"]["train_seconds"]))


def smoothed(made: Made, name: str, pde: Pde, grid: Grid) -> Made:
    """The same fields after a few sweeps of a smoother: what the l2 residual rewards without any learning."""
    began = time.perf_counter()
    fields = pde.smooth(made.samples.fields, SWEEPS, grid, made.samples.params)
    cost = (time.perf_counter() - began) / len(fields) * 1e3
    return Made(name, Samples(fields, made.samples.params), made.nfe, made.ms_per_sample + cost, made.train_seconds)


def solved(made: Made, solved_NCYX: Tensor, ms: float) -> Made:
    """Generated inputs with their numerical solution: what a solver adds to a generator of inputs."""
    samples = Samples(solved_NCYX.to(made.samples.fields.dtype), made.samples.params)
    return Made("sample-then-solve", samples, made.nfe, made.ms_per_sample + ms, made.train_seconds)


def references(pde: Pde, grid: Grid, truth: Samples) -> Iterator[Made]:
    """The truths themselves, the same with a null solution, and inputs with the solution of another."""
    fields = truth.fields
    for name, made in {
        "truth": fields,
        "trivial": pde.trivial(fields),
        "shuffled": shuffled(pde, grid, fields),
    }.items():
        yield Made(name, Samples(made, truth.params), 0, 0.0, 0.0)
