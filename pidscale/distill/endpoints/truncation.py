"""What a finite number of solver steps leaves in the teacher's endpoints: every student that matches them learns that too.

Measured before a run, on noise of its own, against twice the steps. A solver that begins at a high level stretches or shrinks
the strongest modes before it sees anything else. Knows no students.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from pidscale.config import UserError
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.parallel.mesh import Mesh

STREAM = "distill/truncation"
MUCH = 0.1  # of the norm, to which jumps that lie a little elsewhere add, and a match blurs those anyway
STRETCHED = 0.04  # of the mean square, which students learn as it is


class Truncation(NamedTuple):
    """Endpoints beside those of twice the steps, from the same noise.

    Attributes:
        distance: Root mean square of their difference, relative to that of the latter.
        power: Their mean square, relative to that of the latter.
    """

    distance: float
    power: float


def truncation(rollout: Rollout, mesh: Mesh) -> Truncation:
    """Measure what the solver's steps leave, on a chunk of each group of ranks.

    Args:
        rollout: The teacher with its solver.
        mesh: The ranks, which all call it; one all-reduce of 24 bytes.

    Returns:
        What was measured, the same on every rank.

    Raises:
        UserError: What the teacher makes is not finite.
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
    """Return one sentence of what was measured, a warning where it is much."""
    line = (
        f"endpoints of {steps} solver steps lie {found.distance:.1%} from those of {2 * steps}, with {found.power:.2f} times "
        "their mean square"
    )
    if found.distance <= MUCH and abs(found.power - 1) <= STRETCHED:
        return line
    return f"warning: {line}: a student learns that too; try distill.solver_steps={2 * steps}, for teacher time alone"
