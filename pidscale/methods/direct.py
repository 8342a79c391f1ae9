"""Tasks without any student: the field itself is searched, or not even that.

    minimise over x   |M (x - x')|^2 / (2 sigma^2)  +  physics D / 2 sum_k R_k(x)^2 / s_k^2

from the mean field, with the optimiser, the scales and the measures of generator/tasks/energy.py: what a student's law of
fields adds is the difference to this. The equation does not say which inputs are likely, so unknown values stay near the
mean. Knows no networks, no files and no ranks.
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
from pidscale.generator.tasks.energy import Answer, Posed, Search, answered, known_params, searched
from pidscale.generator.tasks.observations import Observation
from pidscale.methods.base import Question
from pidscale.methods.search import TASKS, answer_samples, known_by_name
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, Samples
from pidscale.pde.terms import NORMS


@dataclass(frozen=True)
class Direct:
    """Search the field itself, from the mean of the training data, with a student's energy and no network.

    Attributes:
        steps: Evaluations at most.
        physics: Weight of the residual.
        optimiser: `lbfgs` or `adam`.
    """

    steps: int = Search.steps
    physics: float = Search.physics
    optimiser: str = Search.optimiser
    source: ClassVar[str] = "the energy of generator/tasks/energy.py over the field"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = TASKS

    def run(self, generator: Generator, question: Question) -> Samples:
        """Search from the mean field; scales are those that a student was distilled with, else the equation's own."""
        assert question.known is not None
        scales = generator.card.provenance.scales or dict.fromkeys(NORMS, 1.0)
        search = Search(self.steps, 1, question.seed, 64, self.physics, self.optimiser)
        params = known_by_name(generator, question.params_NP)
        answer = direct(generator.pde, generator.grid, generator.normaliser, question.known, scales, params, search)
        return answer_samples(generator, answer)


@dataclass(frozen=True)
class MeanField:
    """The mean field as the answer to everything: what any method has to beat."""

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
    """The field of least energy for each observation, from one start: `search.starts` is not used.

    scales: s_k^2 by term, as `residual_scales` gives them. mean: the mean field of the training data in physical units,
    where the search begins; None: the mean of each channel. params: as in `sample`; one that is not given is searched for,
    from the middle of its range, under the same prior as a student's search. `eps` of the answer is the field in units of
    the model. Raises UserError.
    """
    search = search or Search()
    task = _posed(pde, grid, normaliser, observation, scales, params, search.physics)
    start = _mean(task, normaliser, mean_CYX)
    found, owners = searched(task, 1, search, lambda counters: (start.repeat(len(counters), 1), None, None))
    return answered(task, found, owners, search.batch)


@sheltered
def mean_field(
    pde: Pde,
    grid: Grid,
    normaliser: Normaliser,
    observation: Observation,
    params: Mapping[str, Any] | None = None,
    mean_CYX: Tensor | None = None,
) -> Answer:
    """The mean field as the answer to everything: what any method has to beat. Arguments as in `direct`."""
    task = _posed(pde, grid, normaliser, observation, {}, params, 0.0)
    start = _mean(task, normaliser, mean_CYX)
    found, owners = searched(task, 1, Search(steps=1), lambda counters: (start.repeat(len(counters), 1), None, None))
    return answered(task, replace(found, calls_B=torch.zeros_like(found.calls_B)), owners, Search.batch)


def _posed(
    pde: Pde,
    grid: Grid,
    normaliser: Normaliser,
    observation: Observation,
    scales: Mapping[str, float],
    params: Mapping[str, Any] | None,
    physics: float,
) -> Posed:
    device = observation.values_NCYX.device
    given = known_params(pde, len(observation), params).to(device)
    return Posed(pde, grid, lambda x, _: normaliser.decode(x), observation, given, scales, physics, prior=0.0)


def _mean(task: Posed, normaliser: Normaliser, mean_CYX: Tensor | None) -> Tensor:
    """Where the search begins, [1, D]: a field in units of the model, and the middle of each parameter's range."""
    if mean_CYX is None:
        field = torch.zeros(task.shape, dtype=torch.float32)
    elif tuple(mean_CYX.shape) == task.shape:
        field = normaliser.encode(mean_CYX[None].float())[0]
    else:
        raise UserError(f"mean: shape {list(mean_CYX.shape)}, expected {list(task.shape)}")
    start = torch.cat([field.cpu().flatten(), torch.zeros(len(task.pde.varying), dtype=torch.float32)])
    return start[None].to(task.params_NP.device)
