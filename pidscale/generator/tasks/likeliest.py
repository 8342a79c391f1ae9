"""The likeliest field of each observation: the one of least energy (energy.py) that a search (search.py) finds.

Knows no files and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale.generator.generator import OneStepGenerator
from pidscale.generator.tasks.descend import Minimum
from pidscale.generator.tasks.energy import PosedTask, pose
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.search import Search, Start, find_minima, standard_normals


@dataclass(frozen=True)
class Answer:
    """The likeliest fields of n observations, on the CPU.

    Attributes:
        fields: Channels [n, Y, X] in physical units and varying parameters [n], by name. They are as the student generates
            them: known values are not inserted.
        mismatch: Root mean square of (field - known value) / sigma over the known points, [n].
        residual: Relative residuals of the fields, each [n]: `l2`, `dual`, `boundary`.
        energy: Energies [n].
        eps: Noise [n, C, Y, X] that the fields are generated from.
        calls: Evaluations (a network call and its gradient) of all starts, int [n].
    """

    fields: dict[str, Tensor]
    mismatch: Tensor
    residual: dict[str, Tensor]
    energy: Tensor
    eps: Tensor
    calls: Tensor


def solve_task(
    generator: OneStepGenerator,
    observation: Observation,
    params: Mapping[str, Any] | None,
    search: Search,
    first_number: int = 0,
) -> Answer:
    """Find the likeliest field of each observation.

    A parameter that is unknown or out of its range, or values too far from what the student makes, raise a UserError.

    Args:
        generator: The student.
        observation: Known values.
        params: Varying parameters that are known, by name, as in `sample`.
        search: Settings of the search.
        first_number: Number of the first observation. The draws that a search starts from follow from these numbers.

    Returns:
        One answer for each observation.
    """
    task = pose(generator, observation, params, search.physics)

    def start(counters: Tensor) -> Start:
        return Start(standard_normals(task, search.seed, "task", counters))

    minima, owners = find_minima(task, search.starts, search, start, first_number)
    return best_answers(task, minima, owners, search.batch)


def best_answers(task: PosedTask, minima: Minimum, owners_B: Tensor, batch: int) -> Answer:
    """Choose the minimum of least energy for each observation.

    Args:
        task: The task, of N observations.
        minima: Minima of as many vectors for each observation, in the order of the observations.
        owners_B: Number of the observation of each vector.
        batch: Number of fields measured at once.

    Returns:
        One answer for each observation.
    """
    energy_NS = minima.energy_B.reshape(len(task.observation), -1)
    best = energy_NS.nan_to_num(nan=math.inf).argmin(dim=1) + torch.arange(len(energy_NS)) * energy_NS.shape[1]
    z = minima.x_BD[best]
    measured = task.measure(z, owners_B[best], batch)
    fields = {channel.name: measured.fields[:, c] for c, channel in enumerate(task.pde.channels)}
    return Answer(
        fields=fields | dict(zip(task.pde.varying, measured.params.T, strict=True)),
        mismatch=measured.mismatch,
        residual=measured.residual,
        energy=minima.energy_B[best],
        eps=z[:, : math.prod(task.shape)].unflatten(1, task.shape),
        calls=minima.calls_B.reshape(energy_NS.shape).sum(dim=1),
    )
