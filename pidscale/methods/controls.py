"""Controls, which keep the other rows of a comparison honest: truths, what is made from them, and finishes of samples.

Knows no networks, files or ranks.
"""

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
from pidscale.pde.head import correct

CHUNK = 64  # samples that solver steps are taken for at once


def _truth(question: Question) -> Samples:
    """Return the truths of a question. Raises UserError if it has none."""
    if question.truth is None:
        raise UserError("question.truth=None: controls are made from held-out truths; give some")
    return question.truth


@dataclass(frozen=True)
class Truth:
    """Answer with the truths themselves: the floor of every measure."""

    source: ClassVar[str] = "held-out truths"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the truths of the question."""
        return _truth(question)


@dataclass(frozen=True)
class Trivial:
    """Answer with the inputs of truths and a null solution, which a residual must distinguish from the truth."""

    source: ClassVar[str] = "truths with a null solution"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the truths of the question with a null solution."""
        truth = _truth(question)
        return Samples(generator.pde.trivial(truth.fields), truth.params)


@dataclass(frozen=True)
class Shuffled:
    """Answer with the inputs of truths and the solution of another truth, which a residual must distinguish too.

    It needs all truths at once, so that a comparison asks it in one batch.
    """

    source: ClassVar[str] = "truths with the solution of another"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the truths of the question, each with the solution of the one before."""
        truth = _truth(question)
        return Samples(shuffled(generator.pde, generator.grid, truth.fields), truth.params)


@dataclass(frozen=True)
class Smooth:
    """Apply sweeps of a smoother to samples: they lower the l2 residual without any learning.

    Attributes:
        sweeps: Number of sweeps.
        solves: False.
    """

    sweeps: int = 3
    solves: ClassVar[bool] = False

    def run(self, generator: Generator, samples: Samples) -> Samples:
        """Return the smoothed samples."""
        fields = generator.pde.smooth(samples.fields, self.sweeps, generator.grid, samples.params)
        return Samples(fields, samples.params)


@dataclass(frozen=True)
class Head:
    """Take solver steps of the equation behind any generator (pde/head.py).

    Attributes:
        steps: Number of steps.
        solves: False.
    """

    steps: int = 4
    solves: ClassVar[bool] = False

    def run(self, generator: Generator, samples: Samples) -> Samples:
        """Return the samples with corrected solutions, CHUNK at a time."""
        pairs = zip(samples.fields.split(CHUNK), samples.params.split(CHUNK), strict=True)
        with torch.no_grad():
            parts = [correct(generator.pde, generator.grid, *pair, self.steps) for pair in pairs]
        return Samples(torch.cat(parts), samples.params)


@dataclass(frozen=True)
class SolveInput:
    """Replace the generated solution by a numerical one: what a solver adds to a generator of inputs."""

    solves: ClassVar[bool] = True

    def run(self, generator: Generator, samples: Samples) -> Samples:
        """Return the samples with numerical solutions of their inputs."""
        solved, _ = solutions(generator.pde, generator.grid, samples)
        return Samples(solved.to(samples.fields.dtype), samples.params)


def solutions(pde: Pde, grid: Grid, samples: Samples) -> tuple[Tensor, int]:
    """Solve the equation numerically for the inputs of samples.

    Args:
        pde: The equation.
        grid: Grid of the samples.
        samples: Physical fields [N, C, Y, X] and their parameters.

    Returns:
        The fields with numerical solutions, float64 [N, C, Y, X], and the number of input values that were moved into the
        range that the solver accepts. Of a sample that is not finite, all values are NaN.
    """
    solved = [
        pde.solve(one.numpy(), grid, params.tolist()) if one.isfinite().all() else (np.full(one.shape, np.nan), 0)
        for one, params in zip(samples.fields.double(), samples.params, strict=True)
    ]
    return torch.from_numpy(np.stack([fields for fields, _ in solved])), sum(moved for _, moved in solved)
