"""The scales that a student's residuals are divided by, and its floor: functions of the student alone. Knows no files."""

from __future__ import annotations

import torch

from pidscale import seeds
from pidscale.generator.one_step import OneStepGenerator
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS

SCALE_SAMPLES = 16  # of the student's own samples, on which scales are measured that its card does not have
LEAST_SCALE = 1e-4  # lower bound of s_k^2, as in training: a hundredth of the equation's own scale
DEFAULT_FLOOR = 0.01  # the relative l2 residual that ends a descent if the card does not have that of the truths


def residual_scales(generator: OneStepGenerator) -> dict[str, float]:
    """Return the scales s_k^2 that the student was distilled with, else the mean squares over samples of its own.

    Either is a function of the student alone, so that the result for a sample does not depend on the others of its call.

    Args:
        generator: The student.

    Returns:
        s_k^2 by term.
    """
    known = generator.card.provenance.scales
    if known is not None and all(k in known for k in NORMS):
        return {k: known[k] for k in NORMS}
    counters = range(SCALE_SAMPLES)
    shape = (len(generator.channels), *generator.grid.shape)
    eps = seeds.normal(0, "scales", list(counters), shape, device=generator.device)
    params = draw_params(generator.pde, 0, "scales", counters)
    with torch.no_grad():
        squares = residual_squares(
            generator.pde, generator.grid, generator.differentiable(eps, params).detach(), params
        )
    return {k: max(float(squares[k].mean()), LEAST_SCALE) for k in NORMS}


def residual_floor(generator: OneStepGenerator) -> float:
    """Return the relative l2 residual of the truths that the student was trained on, or 0.01 if its card does not have it.

    The floor in the student's report is ignored: a report is made later, and a result must not depend on when it is computed.

    Args:
        generator: The student.

    Returns:
        Relative l2 residual.
    """
    return generator.card.provenance.residual_floor or DEFAULT_FLOOR
