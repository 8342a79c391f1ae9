"""Messages before a distillation starts: weights of the residual and cost of the endpoints. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pidscale.config import DistillSettings, Settings
from pidscale.diffusion.solvers import SOLVERS
from pidscale.distill.endpoints.batch import open_supply
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.endpoints.stored import needed
from pidscale.distill.objectives.physics import active_weights, weights_on
from pidscale.limits import chunks_made
from pidscale.ops.grid import Grid

STEP = 4.0  # forward passes that a student's step costs per sample: one forward, two backward, one residual
LITTLE = 0.1


def teacher_share(settings: DistillSettings) -> float:
    """Return the teacher's share of all work: (K / R) / (K / R + 4), with 8 in place of 4 if a control is trained."""
    each = SOLVERS[settings.solver].calls(settings.solver_steps) / settings.reuse
    return each / (each + STEP * (2 if settings.control else 1))


def cost_line(settings: DistillSettings, endpoints: int, bytes_each: int) -> str:
    """Return one sentence on the teacher's share of the work, the number of endpoints, and how to reduce their cost.

    Args:
        settings: Settings of the section `distill`.
        endpoints: Number of endpoints.
        bytes_each: Size of an endpoint in bytes.

    Returns:
        The sentence.
    """
    d = settings
    call_count = SOLVERS[d.solver].calls(d.solver_steps)
    enough = math.ceil(call_count * (1 - LITTLE) / LITTLE / (STEP * (2 if d.control else 1)))
    held = d.buffer_rows * d.global_batch
    line = (
        f"endpoints of K={call_count} teacher calls, R={d.reuse} uses each: about {teacher_share(d):.0%} of the work is the "
        f"teacher's; {endpoints} endpoints in all, {held} at a time ({held * bytes_each / 2**20:.1f} MiB)"
    )
    if d.source == "shards":
        line = f"{endpoints} endpoints of K={call_count} teacher calls, read from {d.endpoints}"
    elif d.reuse < enough:
        line += f"; distill.reuse={enough} or more would make it {LITTLE:.0%}"
    return line


def announcement(settings: Settings, rollout: Rollout, shape: Sequence[int]) -> Iterator[str]:
    """Yield the messages before a distillation. Raises UserError if a set of endpoints does not fit the run.

    Args:
        settings: Settings of the run.
        rollout: Teacher and solver.
        shape: Shape of a joint field.

    Yields:
        Lines of text.
    """
    d = settings.distill
    yield weights_line(d, rollout.teacher.grid)
    if d.endpoints and d.source != "shards":
        yield f"distill.endpoints is not read: distill.source={d.source}"
    if d.takes_endpoints:
        open_supply(settings, rollout)  # only to raise its errors
        yield cost_line(d, needed(settings), 4 * math.prod(shape))
        made = chunks_made(d.global_batch, settings.cluster.workers // settings.cluster.space, d.chunk)
        if made > 1 and d.source != "shards":
            yield f"distill.chunk={d.chunk}: some workers make {made:.2g} times the endpoints that they use; 1 avoids that"


def weights_line(settings: DistillSettings, grid: Grid) -> str:
    """Return one sentence with the effective weights of the residual, after equation, objective, command line and grid."""
    found = weights_on(settings, grid)
    weights = [f"{name} {weight:g}" for name, weight in found.items() if weight > 0]
    if not weights:
        return "the residual is left out: no term that distill.norm chooses has distill.weights times physics_weight above 0"
    begins = f"from step {int(settings.physics_from * settings.steps)} of {settings.steps}"
    times = f"distill.weights times distill.physics_weight={settings.physics_weight:g}"
    times += "" if found == active_weights(settings) else f", raised for {grid.shape[0]} x {grid.shape[1]} points"
    return f"the residual weighs {', '.join(weights)} ({times}), {begins}"
