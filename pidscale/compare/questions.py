"""What every contender is asked: the same noise, parameters and held-out truths. Knows no methods and no metrics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale import metrics
from pidscale.config import Settings, UserError
from pidscale.dataset.problem import Problem
from pidscale.generator.generator import Generator
from pidscale.methods.base import Question
from pidscale.pde.base import Samples
from pidscale.pde.residuals import residual_rms

STREAM = "evaluate"


@dataclass(frozen=True)
class Reference:
    """What all rows are held against.

    Attributes:
        problem: Equation, grid, units and data.
        truth: Held-out truths in physical units.
        x_truth_NCYX: The same in the units of the model.
        training_NCYX: Training fields in the units of the model.
        swd_floor: Sliced Wasserstein distance of truths to truths.
        residual_floor: Residuals of the truths by norm.
        residual_trivial: Residuals of the same inputs with a null solution.
        seeds: Seeds of the run and of the question.
    """

    problem: Problem
    truth: Samples
    x_truth_NCYX: Tensor
    training_NCYX: Tensor
    swd_floor: float
    residual_floor: dict[str, float]
    residual_trivial: dict[str, float]
    seeds: list[int]


def reference(settings: Settings, problem: Problem) -> Reference:
    """Read the held-out truths and measure the floors.

    Args:
        settings: Those of the run.
        problem: Its problem.

    Returns:
        What rows are held against.

    Raises:
        UserError: When the test split has too few truths.
    """
    n = settings.evaluate.samples
    pool = problem.samples("test", 2 * n)
    if len(pool.fields) < 2 * n:
        raise UserError(
            f"evaluate.samples={n} needs {2 * n} held-out truths (two halves for the floor), {settings.data.path} has "
            f"{len(pool.fields)}; lower evaluate.samples, or make the set with data.test={2 * n}"
        )
    training = problem.samples("train", 4096)
    truth = pool.first(n)
    encode = problem.normaliser.encode
    return Reference(
        problem,
        truth,
        encode(truth.fields),
        encode(training.fields),
        metrics.sliced_floor(encode(pool.fields).flatten(1)),
        residual_rms(problem.pde, problem.grid, *truth),
        residual_rms(problem.pde, problem.grid, problem.pde.trivial(truth.fields), truth.params),
        [settings.run.seed, settings.evaluate.seed],
    )


def question(settings: Settings, generator: Generator, truth: Samples) -> Question:
    """Return what every contender of a run is asked.

    Args:
        settings: Those of the run.
        generator: Any of its generators, for shapes and parameter ranges.
        truth: Held-out truths.

    Returns:
        The question: `evaluate.samples` noises of `evaluate.seed`.
    """
    e = settings.evaluate
    counters = range(e.samples)
    return Question(
        generator.eps(counters, e.seed, STREAM),
        generator.params(counters, e.seed, STREAM),
        torch.arange(e.samples),
        truth=truth,
        stream=STREAM,
    )
