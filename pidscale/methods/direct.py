"""Tasks without a student: a search over the field itself, and the mean field.

    minimise over x   |M (x - x')|^2 / (2 sigma^2)  +  physics D / 2 sum_k R_k(x)^2 / s_k^2

from the mean field, with the optimiser, the scales and the measures of a student's tasks (generator/tasks/energy.py, with the
same symbols). The difference to a student's answer is what its law of fields adds: the equation does not say which inputs are
likely, so unknown values stay near the mean. Knows no networks, no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.generator import Generator
from pidscale.generator.tasks.energy import PosedTask, known_params
from pidscale.generator.tasks.likeliest import Answer, best_answers
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.search import Search, Start, find_minima
from pidscale.methods.base import Question
from pidscale.methods.search import TASKS, answer_samples, known_by_name
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, Samples
from pidscale.pde.terms import NORMS


@dataclass(frozen=True)
class Direct:
    """Search the field itself, from the mean of the training data, without a network.

    Attributes:
        steps: Largest number of evaluations.
        physics: Weight of the residual.
        optimiser: `lbfgs` or `adam`.
        source: The energy that it minimises.
        takes: Empty, as it calls no network.
        answers: Kinds of questions that it answers.
    """

    steps: int = Search.steps
    physics: float = Search.physics
    optimiser: str = Search.optimiser
    source: ClassVar[str] = "the energy of generator/tasks/energy.py over the field"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = TASKS

    def run(self, generator: Generator, question: Question) -> Samples:
        """Search for a field for each observation, with the scales of the generator's card, else those of the equation."""
        assert question.known is not None
        scales = generator.card.provenance.scales or dict.fromkeys(NORMS, 1.0)
        search = Search(self.steps, 1, question.seed, 64, self.physics, self.optimiser)
        params = known_by_name(generator, question.params_NP)
        answer = direct(generator.pde, generator.grid, generator.normaliser, question.known, scales, params, search)
        return answer_samples(generator, answer)


@dataclass(frozen=True)
class MeanField:
    """Answer every task with the mean field, which any other method has to beat."""

    source: ClassVar[str] = "the mean of the training data"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = TASKS

    def run(self, generator: Generator, question: Question) -> Samples:
        """Return the mean field for each observation."""
        assert question.known is not None
        params = known_by_name(generator, question.params_NP)
        answer = mean_field(generator.pde, generator.grid, generator.normaliser, question.known, params)
        return answer_samples(generator, answer)


@sheltered
def direct(
    pde: Pde,
    grid: Grid,
    normaliser: Normaliser,
    observation: Observation,
    scales: Mapping[str, float],
    params: Mapping[str, Any] | None = None,
    search: Search | None = None,
    mean_CYX: Tensor | None = None,
) -> Answer:
    """Find the field of least energy for each observation, from one start.

    A parameter that is unknown or out of its range, or a mean field of another shape, raises a UserError.

    Args:
        pde: The equation.
        grid: Grid of the fields.
        normaliser: Conversion between physical units and units of the model.
        observation: Known values.
        scales: Squared residual scales s_k^2 by term, as `residual_scales` returns them.
        params: Varying parameters that are known, by name. Others are searched for from the middle of their ranges, under the
            same prior as in a student's search.
        search: Settings of the search; `search.starts` is not used. None for the defaults.
        mean_CYX: Mean field of the training data in physical units, where the search starts; None for the mean of each
            channel.

    Returns:
        One answer for each observation. Its `eps` is the field in units of the model.
    """
    search = search or Search()
    task = _posed(pde, grid, normaliser, observation, scales, params, search.physics)
    mean = _mean(task, normaliser, mean_CYX)
    minima, _ = find_minima(task, 1, search, lambda counters: Start(mean.repeat(len(counters), 1)))
    return best_answers(task, minima, search.batch)


@sheltered
def mean_field(
    pde: Pde,
    grid: Grid,
    normaliser: Normaliser,
    observation: Observation,
    params: Mapping[str, Any] | None = None,
    mean_CYX: Tensor | None = None,
) -> Answer:
    """Answer every observation with the mean field.

    Args:
        pde: As in `direct`.
        grid: As in `direct`.
        normaliser: As in `direct`.
        observation: As in `direct`.
        params: Varying parameters that are known, by name; others are the middle of their ranges.
        mean_CYX: As in `direct`.

    Returns:
        One answer for each observation, with 0 calls.
    """
    task = _posed(pde, grid, normaliser, observation, {}, params, 0.0)
    mean = _mean(task, normaliser, mean_CYX)
    minima, _ = find_minima(task, 1, Search(steps=1), lambda counters: Start(mean.repeat(len(counters), 1)))
    return best_answers(task, replace(minima, calls_B=torch.zeros_like(minima.calls_B)), Search.batch)


def _posed(
    pde: Pde,
    grid: Grid,
    normaliser: Normaliser,
    observation: Observation,
    scales: Mapping[str, float],
    params: Mapping[str, Any] | None,
    physics: float,
) -> PosedTask:
    """Return the task of finding the field itself: vectors are fields in units of the model, without a prior."""
    device = observation.values_NCYX.device
    given = known_params(pde, len(observation), params).to(device)
    return PosedTask(pde, grid, lambda x, _: normaliser.decode(x), observation, given, scales, physics, prior=0.0)


def _mean(task: PosedTask, normaliser: Normaliser, mean_CYX: Tensor | None) -> Tensor:
    """Return the start of a search, [1, D]: the mean field in units of the model, and the middle of each range."""
    if mean_CYX is None:
        field = torch.zeros(task.shape, dtype=torch.float32)
    elif tuple(mean_CYX.shape) == task.shape:
        field = normaliser.encode(mean_CYX[None].float())[0]
    else:
        raise UserError(f"mean_CYX: shape {list(mean_CYX.shape)}, expected {list(task.shape)}")
    start = torch.cat([field.cpu().flatten(), torch.zeros(len(task.pde.varying), dtype=torch.float32)])
    return start[None].to(task.params_NP.device)
