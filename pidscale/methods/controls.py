"""The rows that keep the others honest: truths, their controls, and what is done to finished samples without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.generator.generator import Generator
from pidscale.methods.base import SAMPLE, Question
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, Samples, shuffled


def _truth(question: Question) -> Samples:
    if question.truth is None:
        raise UserError("controls are made of held-out truths: ask a question that has some")
    return question.truth


@dataclass(frozen=True)
class Truth:
    """The truths themselves: the floor of every measure."""

    source: ClassVar[str] = "held-out truths"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the truths."""
        return _truth(question)


@dataclass(frozen=True)
class Trivial:
    """Inputs of truths with a null solution: what a residual must tell from the truth."""

    source: ClassVar[str] = "truths with a null solution"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the truths with a null solution."""
        truth = _truth(question)
        return Samples(generator.pde.trivial(truth.fields), truth.params)


@dataclass(frozen=True)
class Shuffled:
    """Inputs of truths with the solution of the truth before: what a residual must tell from the truth too.

    It needs all truths at once, so a comparison asks it in one batch.
    """

    source: ClassVar[str] = "truths with the solution of another"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the truths with the solution of the one before."""
        truth = _truth(question)
        return Samples(shuffled(generator.pde, generator.grid, truth.fields), truth.params)


@dataclass(frozen=True)
class Smooth:
    """Sweeps of a smoother over finished samples: what the l2 residual rewards without any learning.

    Attributes:
        sweeps: Number of sweeps.
    """

    sweeps: int = 3
    solves: ClassVar[bool] = False

    def run(self, generator: Generator, samples: Samples) -> Samples:
        """Return the samples after the sweeps."""
        fields = generator.pde.smooth(samples.fields, self.sweeps, generator.grid, samples.params)
        return Samples(fields, samples.params)


@dataclass(frozen=True)
class SolveInput:
    """The generated input with a numerical solution: what a solver adds to a generator of inputs."""

    solves: ClassVar[bool] = True

    def run(self, generator: Generator, samples: Samples) -> Samples:
        """Return the samples with numerical solutions."""
        solved, _ = solutions(generator.pde, generator.grid, samples)
        return Samples(solved.to(samples.fields.dtype), samples.params)


def solutions(pde: Pde, grid: Grid, samples: Samples) -> tuple[Tensor, int]:
    """Solve the equation for the inputs of samples.

    Args:
        pde: The equation.
        grid: The grid of the samples.
        samples: Physical fields [N, C, Y, X] and their parameters.

    Returns:
        The fields with numerical solutions, float64 [N, C, Y, X], and how many input points were made legal.
    """
    solved = [
        pde.solve(one.numpy(), grid, params.tolist())
        for one, params in zip(samples.fields.double(), samples.params, strict=True)
    ]
    return torch.from_numpy(np.stack([fields for fields, _ in solved])), sum(raised for _, raised in solved)
