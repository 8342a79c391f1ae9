"""Forward problems whose inputs are all known: the equation's own solver steps answer them, without a network.

A student is for what a solver cannot do. Knows no files and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.tasks.energy import known_params
from pidscale.generator.tasks.likeliest import Answer, Stage
from pidscale.generator.tasks.observations import Observation
from pidscale.pde.base import solution_mask
from pidscale.pde.head import LARGEST, correct
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS

STEPS = (16, LARGEST)  # tried one after the other
SOLVED = 1e-3  # largest residual, in the dual norm, of a field that counts as a solution


@torch.no_grad()
def solve_inputs(
    generator: OneStepGenerator, observation: Observation, params: Mapping[str, Any] | None, batch: int
) -> Answer | None:
    """Solve the equation for known inputs by the steps of its head, from a solution of 0.

    A parameter that is unknown or out of its range raises a UserError.

    Args:
        generator: A generator whose head has steps.
        observation: Known values without noise.
        params: Varying parameters that are known, by name.
        batch: Number of fields solved at once.

    Returns:
        One answer for each observation, in which the inputs are those that are known; None if an input or a parameter is not
        known, or the steps do not lead to a solution of every field.
    """
    pde, grid = generator.pde, generator.grid
    given = known_params(pde, len(observation), params)
    inputs = ~solution_mask(pde, grid)
    if given.isnan().any() or not torch.equal(observation.known_NCYX, inputs.expand_as(observation.known_NCYX)):
        return None
    for steps in STEPS:
        parts = []
        for fields, own in zip(observation.values_NCYX.split(batch), given.split(batch), strict=True):
            parts.append(correct(pde, grid, fields.to(generator.device), own.to(generator.device), steps).cpu())
        fields = torch.cat(parts)
        squares = residual_squares(pde, grid, fields, given)
        if bool((squares["dual"].sqrt() <= SOLVED).all()):
            return _answer(generator, fields, given, squares)
    return None


def _answer(generator: OneStepGenerator, fields_NCYX: Tensor, params_NP: Tensor, squares: dict[str, Tensor]) -> Answer:
    """Return solved fields as an answer."""
    none = torch.zeros(len(fields_NCYX), dtype=torch.long)
    return Answer(
        fields=generator.split(fields_NCYX) | dict(zip(generator.pde.varying, params_NP.T, strict=True)),
        mismatch=torch.zeros(len(fields_NCYX), dtype=torch.float32),
        residual={name: squares[name].sqrt() for name in NORMS},
        energy=torch.full((len(fields_NCYX),), math.nan),
        eps=torch.full_like(fields_NCYX, math.nan),
        calls=none,
        field_calls=none,
        stage=Stage.SOLVER,
    )
