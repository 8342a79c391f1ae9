"""The measures of a contender's samples: one row of a comparison. Knows no methods and no files."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pidscale import metrics
from pidscale.compare.contender import Contender
from pidscale.compare.questions import Reference
from pidscale.methods.base import Outcome
from pidscale.pde.base import solution_mask
from pidscale.pde.residuals import residual_mean_abs, residual_rms


def row(
    contender: Contender, outcome: Outcome, train_seconds: float, against: Reference, solved_NCYX: Tensor
) -> dict[str, Any]:
    """Measure a contender.

    Args:
        contender: The contender.
        outcome: Its samples and their cost.
        train_seconds: Training time of its network; 0 without a network.
        against: Truths and floors.
        solved_NCYX: Numerical solutions for the inputs of the samples, in physical units.

    Returns:
        The row, plain JSON values by name.
    """
    problem = against.problem
    pde = problem.pde
    fields = outcome.samples.fields
    residual = residual_rms(pde, problem.grid, *outcome.samples)
    phase = pde.phase_error(fields)
    mask = solution_mask(pde, problem.grid)
    x = problem.normaliser.encode(fields)
    distance = metrics.feature_distance(x, against.x_truth_NCYX)
    return {
        "method": contender.name,
        "trained": contender.trained,
        "asked": contender.asked,
        "nfe": whole_if(outcome.cost.calls),
        "gradients": whole_if(outcome.cost.gradients),
        "residuals": whole_if(outcome.cost.residuals),
        "residual_l2": residual["l2"],
        "residual_dual": residual["dual"],
        "boundary_rms": residual["boundary"],
        "residual_abs": residual_mean_abs(pde, problem.grid, *outcome.samples),
        "residual_floor": against.residual_floor["l2"],
        "residual_floor_dual": against.residual_floor["dual"],
        "residual_trivial": against.residual_trivial["l2"],
        "residual_trivial_dual": against.residual_trivial["dual"],
        "solution_error": metrics.solution_error(fields[:, mask], solved_NCYX[:, mask]),
        "phase_error": None if phase is None else float(phase.mean()),
        **metrics.distribution_row(x, against.x_truth_NCYX, [against.swd_floor], [c.name for c in pde.channels]),
        "feature_distance": distance,
        "feature_floor": against.feature_floor,
        "feature_excess": metrics.excess(distance, against.feature_floor),
        "nearest_training": float(metrics.nearest(x, against.training_NCYX).median()),
        "ms_per_sample": 1e3 * outcome.cost.seconds,
        "train_seconds": train_seconds,
        "n_samples": len(fields),
        "seeds": against.seeds,
    }


def whole_if(value: float) -> float | int:
    """Return a mean count as an int if it is whole, else rounded to two decimals."""
    return int(value) if value == int(value) else round(value, 2)
