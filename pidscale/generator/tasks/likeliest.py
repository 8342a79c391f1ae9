"""The likeliest field of each observation: the one of least energy (energy.py) that a search (search.py) finds.

Knows no files and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.tasks.descend import Minimum
from pidscale.generator.tasks.energy import Measured, PosedTask, pose
from pidscale.generator.tasks.field import search_field
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.search import MOST, Search, Start, find_minima, standard_normals


class Stage(StrEnum):
    """What found an answer."""

    NOISE = "noise"  # a search over the noise of the student
    FIELD = "field"  # a second search, over the field itself
    SOLVER = "solver"  # the equation's own solver steps, for known inputs


@dataclass(frozen=True)
class Answer:
    """The likeliest fields of n observations, on the CPU.

    Attributes:
        fields: Channels [n, Y, X] in physical units and varying parameters [n], by name. They are as the last stage found
            them: known values are not inserted.
        mismatch: Root mean square of (field - known value) / sigma over the known points, [n].
        residual: Relative residuals of the fields, each [n]: `l2`, `dual`, `boundary`.
        energy: Energies [n]; NaN for an answer of the solver, which has none.
        eps: Noise [n, C, Y, X] that the fields are generated from; NaN for an answer of the solver.
        calls: Evaluations (a network call and its gradient) of all starts, int [n].
        field_calls: Evaluations of a second search, over the field itself, int [n]; 0 without one.
        first: The answer that the second search started from, over the noise; None without one.
        stage: What found the fields.
    """

    fields: dict[str, Tensor] = field(repr=False)
    mismatch: Tensor
    residual: dict[str, Tensor]
    energy: Tensor
    eps: Tensor = field(repr=False)
    calls: Tensor
    field_calls: Tensor
    first: Answer | None = field(default=None, repr=False)
    stage: Stage = Stage.NOISE


def solve_task(
    generator: OneStepGenerator,
    observation: Observation,
    params: Mapping[str, Any] | None,
    search: Search,
    first_number: int = 0,
    first: Tensor | None = None,
) -> Answer:
    """Find the likeliest field of each observation.

    A parameter that is unknown or out of its range, or values too far from what the student makes, raise a UserError.

    Args:
        generator: The student.
        observation: Known values.
        params: Varying parameters that are known, by name, as in `sample`.
        search: Settings of the search.
        first_number: Number of the first observation. The draws that a search starts from follow from these numbers.
        first: A vector [N, D] for each observation that its search starts from, in place of the first draw; None for none.

    Returns:
        One answer for each observation.
    """
    task = pose(generator, observation, params, search.physics)

    def start(counters: Tensor) -> Start:
        draws = standard_normals(task, search.seed, "task", counters)
        if first is not None:
            named = counters % MOST == 0
            draws[named] = first[(counters[named] // MOST - first_number).to(first.device)]
        return Start(draws)

    minima, _ = find_minima(task, search.starts, search, start, first_number)
    answer = best_answers(task, minima, search.batch)
    if not search.field_steps:
        return answer
    fields = torch.stack([answer.fields[name] for name in generator.channels], dim=1)
    second, found = search_field(generator, task, least(minima, len(observation)), fields, search)
    return _over_field(second, found, answer, search.batch)


def best_answers(task: PosedTask, minima: Minimum, batch: int) -> Answer:
    """Choose the minimum of least energy for each observation.

    Args:
        task: The task, of N observations.
        minima: Minima of as many vectors for each observation, in the order of the observations.
        batch: Number of fields measured at once.

    Returns:
        One answer for each observation.
    """
    count = len(task.observation)
    best = least(minima, count)
    fields, measured = _measured(task, best.x_BD, batch)
    return Answer(
        fields=fields,
        mismatch=measured.mismatch,
        residual=measured.residual,
        energy=best.energy_B,
        eps=best.x_BD[:, : math.prod(task.shape)].unflatten(1, task.shape),
        calls=minima.calls_B.reshape(count, -1).sum(dim=1),
        field_calls=torch.zeros(count, dtype=torch.long),
    )


def least(minima: Minimum, count: int) -> Minimum:
    """Return the minimum of least energy for each of `count` observations, which have as many each, in order."""
    energy_NS = minima.energy_B.reshape(count, -1)
    best = energy_NS.nan_to_num(nan=math.inf).argmin(dim=1) + torch.arange(count) * energy_NS.shape[1]
    return Minimum(minima.x_BD[best], minima.energy_B[best], minima.calls_B[best])


def _over_field(task: PosedTask, found: Minimum, first: Answer, batch: int) -> Answer:
    """Return the answer of a search over the field that started from another answer."""
    fields, measured = _measured(task, found.x_BD, batch)
    return replace(
        first,
        fields=fields,
        mismatch=measured.mismatch,
        residual=measured.residual,
        energy=found.energy_B,
        field_calls=found.calls_B,
        first=first,
        stage=Stage.FIELD,
    )


def _measured(task: PosedTask, z_ND: Tensor, batch: int) -> tuple[dict[str, Tensor], Measured]:
    """Return the fields and parameters of a vector for each observation by name, and their measures."""
    measured = task.measure(z_ND, torch.arange(len(z_ND)), batch)
    fields = {channel.name: measured.fields[:, c] for c, channel in enumerate(task.pde.channels)}
    return fields | dict(zip(task.pde.varying, measured.params.T, strict=True)), measured
