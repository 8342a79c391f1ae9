"""A second search, over the field itself, from the field that the first one found.

    E(x) = |M (F(x) - x')|^2 / (2 sigma^2)  +  physics D / 2 sum_k R_k(F(x))^2 / s_k^2  +  prior |x - x1|^2 / 2

x1 is the field of the first search in units of the model, and F the conversion to physical units with the constraints of the
student, and without its head: the residual is in the energy, and solver steps in every evaluation cost more than they bring.
Other symbols as in energy.py. The first search knows which fields are likely, but only fields that the network makes; the
second one corrects what the network cannot make, near the first answer. Varying parameters that are searched for are held to
their first values as the first search holds them to 0. A step costs no network call. Knows no files and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.scales import residual_scales
from pidscale.generator.tasks.descend import Minimum
from pidscale.generator.tasks.energy import PosedTask
from pidscale.generator.tasks.search import MOST, Search, Start, find_minima

Noise = Callable[[Tensor], Tensor]
"""Counters [b] -> noise [b, K] that is added to the known values (`PosedTask.misfit`)."""


def search_field(
    generator: OneStepGenerator,
    task: PosedTask,
    found: Minimum,
    fields_BCYX: Tensor,
    search: Search,
    noise: Noise | None = None,
) -> tuple[PosedTask, Minimum]:
    """Minimise the energy over the field from the minima of a first search.

    Args:
        generator: The student.
        task: The task of the first search, of N observations.
        found: Its minima, as many for each observation, in order.
        fields_BCYX: The fields of these minima, in physical units.
        search: Settings: those that begin with `field_`, and `batch`.
        noise: Noise that is added to the known values; None for none.

    Returns:
        The task of the second search, and its minima: vectors of a field in units of the model and a number for each varying
        parameter.
    """
    device = task.params_NP.device
    bare = generator.with_head(0)
    each = len(found.x_BD) // len(task.observation)
    x1 = generator.normaliser.encode(fields_BCYX.to(device)).flatten(1)
    start_BD = torch.cat([x1, found.x_BD[:, math.prod(task.shape) :].to(device)], dim=1)
    second = replace(
        task,
        draw=partial(bare.to_physical, smooth=True),
        scales=residual_scales(bare) if search.field_physics > 0 else {},
        physics=search.field_physics,
        prior=search.field_prior,
    )

    def start(counters: Tensor) -> Start:
        own = start_BD[(counters // MOST * each + counters % MOST).to(device)]
        return Start(own, own, None if noise is None else noise(counters))

    def report(done: int, total: int, note: str) -> None:
        if search.progress is not None:
            search.progress(done, total, f"over the field, {note}")

    minima, _ = find_minima(second, each, replace(search, steps=search.field_steps, progress=report), start)
    return second, minima
