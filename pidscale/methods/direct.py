"""Tasks without any student: the field itself is searched, or not even that.

    minimise over x   |M (x - x')|^2 / (2 sigma^2)  +  physics D / 2 sum_k R_k(x)^2 / s_k^2

from the mean field, with the optimiser, the scales and the measures of generator/tasks/energy.py: what a student's law of
fields adds is the difference to this. The equation does not say which inputs are likely, so unknown values stay near the
mean. Knows no networks, no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.tasks.energy import Answer, Posed, Search, answered, known_params, searched
from pidscale.generator.tasks.observations import Observation
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde


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
