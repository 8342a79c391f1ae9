"""The question that every contender is asked, and the truths that answers are compared with. Knows no methods."""

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
    """The truths that all rows are compared with, and measures of the truths themselves.

    Attributes:
        problem: Equation, grid, units and data.
        truth: Held-out truths in physical units.
        x_truth_NCYX: The same truths in units of the model.
        training_NCYX: Training fields in units of the model.
        feature_floor: Distance of the features of two halves of the truths.
        swd_floor: Sliced Wasserstein distance between two halves of the truths.
        residual_floor: Residuals of the truths by norm.
        residual_trivial: Residuals of the inputs of the truths with a null solution, by norm.
        seeds: Seed of the run (`run.seed`) and seed of the question's noise and parameters (`evaluate.seed`).
    """

    problem: Problem
    truth: Samples
    x_truth_NCYX: Tensor
    training_NCYX: Tensor
    feature_floor: float
    swd_floor: float
    residual_floor: dict[str, float]
    residual_trivial: dict[str, float]
    seeds: list[int]


def check_truths(settings: Settings, problem: Problem) -> None:
    """Refuse a test split that is too small for a report, without reading its samples.

    Args:
        settings: Settings of the run.
        problem: Equation, grid, units and data of the run.

    Raises:
        UserError: When the split has too few truths.
    """
    n = settings.evaluate.samples
    there = len(problem.shards("test"))
    if there < 2 * n:
        raise UserError(
            f"evaluate.samples={n}: needs {2 * n} held-out truths (the floor compares two halves), {settings.data.path} has "
            f"{there}; lower evaluate.samples, or make the set with data.test={2 * n}"
        )


def reference(settings: Settings, problem: Problem) -> Reference:
    """Read the held-out truths and measure their floors.

    Args:
        settings: Settings of the run.
        problem: Equation, grid, units and data of the run.

    Returns:
        Truths and floors. A test split with too few truths is a UserError.
    """
    check_truths(settings, problem)
    n = settings.evaluate.samples
    pool = problem.samples("test", 2 * n)
    training = problem.samples("train", 4096)
    truth = pool.first(n)
    encode = problem.normaliser.encode
    trivial = problem.pde.trivial(truth.fields)
    return Reference(
        problem=problem,
        truth=truth,
        x_truth_NCYX=encode(truth.fields),
        training_NCYX=encode(training.fields),
        feature_floor=metrics.feature_distance(encode(pool.fields[n:]), encode(truth.fields)),
        swd_floor=metrics.sliced_floor(encode(pool.fields).flatten(1)),
        residual_floor=residual_rms(problem.pde, problem.grid, *truth),
        residual_trivial=residual_rms(problem.pde, problem.grid, trivial, truth.params),
        seeds=[settings.run.seed, settings.evaluate.seed],
    )


def question(settings: Settings, generator: Generator, truth: Samples) -> Question:
    """Return the question that every contender of a run is asked.

    Args:
        settings: Settings of the run.
        generator: Any generator of the run, for the shape of fields and the ranges of parameters.
        truth: Held-out truths.

    Returns:
        The question: noise `eps_NCYX` and parameters of `evaluate.samples` samples, drawn with `evaluate.seed`. Further noise
        of a method, such as that of `FewCalls`, is drawn with seed 0 (`Question.seed`), whatever `evaluate.seed` is.
    """
    seed = settings.evaluate.seed
    counters = range(settings.evaluate.samples)
    return Question(
        eps_NCYX=generator.eps(counters, seed, STREAM),
        params_NP=generator.params(counters, seed, STREAM),
        counters=torch.arange(len(counters)),
        truth=truth,
        stream=STREAM,
    )
