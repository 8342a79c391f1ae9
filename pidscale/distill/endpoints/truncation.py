"""Truncation error of the teacher's endpoints due to a finite number of solver steps. Students that match them inherit it.

The error is measured before a run by comparison with twice the number of steps, on separate noise. A solver that starts at a
high noise level amplifies or damps the strongest modes in its first steps. Knows no students.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from pidscale.config import UserError
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.parallel.mesh import Mesh

STREAM = "distill/truncation"
MUCH = 0.1  # largest distance without a warning; slightly shifted jumps add to it, but a regression blurs them anyway
STRETCHED = 0.04  # largest deviation of the power from 1 without a warning; students reproduce it exactly


class Truncation(NamedTuple):
    """Comparison of endpoints with those of twice the number of steps, from the same noise.

    Attributes:
        distance: Root mean square of the difference, relative to that of the endpoints with twice the steps.
        power: Mean square of the endpoints, relative to that of the endpoints with twice the steps.
    """

    distance: float
    power: float


def truncation(rollout: Rollout, mesh: Mesh) -> Truncation:
    """Measure the truncation error on one chunk per group of ranks. All ranks call it; one all-reduce of 24 bytes.

    Args:
        rollout: Teacher and solver.
        mesh: The mesh of ranks.

    Returns:
        The truncation error, the same on every rank.

    Raises:
        UserError: When the endpoints are not finite.
    """
    counters = torch.arange(rollout.chunk) + rollout.chunk * mesh.data_rank
    coarse, fine = (
        rollout.by(rollout.solver, steps, STREAM).endpoints(counters).fields_BCYX.double()
        for steps in (rollout.steps, 2 * rollout.steps)
    )
    apart, own, theirs = mesh.sum(torch.stack([x.square().sum() for x in (coarse - fine, coarse, fine)])).tolist()
    if not (math.isfinite(apart + own) and 0 < theirs < math.inf):
        raise UserError(
            f"distill.solver={rollout.solver}: what the teacher makes in {rollout.steps} steps, or in twice as many, is not "
            "finite; train the teacher again, or try distill.solver=heun"
        )
    return Truncation((apart / theirs) ** 0.5, own / theirs)


def truncation_line(found: Truncation, steps: int) -> str:
    """Return one sentence that states the truncation error, as a warning if it is large."""
    line = (
        f"endpoints of {steps} solver steps lie {found.distance:.1%} from those of {2 * steps}, with {found.power:.2f} times "
        "their mean square"
    )
    if found.distance <= MUCH and abs(found.power - 1) <= STRETCHED:
        return line
    return f"warning: {line}: a student learns that too; try distill.solver_steps={2 * steps}, for teacher time alone"
