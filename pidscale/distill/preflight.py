"""What a distillation says before it starts: what its residual weighs, what its endpoints will cost. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pidscale.config import DistillSettings, Settings
from pidscale.diffusion.solvers import SOLVERS
from pidscale.distill.endpoints.batch import open_supply
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.endpoints.stored import needed
from pidscale.distill.objectives.physics import active_weights

STEP = 4.0  # a student's step on one sample, in forward passes: its own, a backward pass of two, and the residual
LITTLE = 0.1


def teacher_share(settings: DistillSettings) -> float:
    """Return the share of all work that is the teacher's: (K / R) / (K / R + 4), with a control K / R beside 8."""
    each = SOLVERS[settings.solver].calls(settings.solver_steps) / settings.reuse
    return each / (each + STEP * (2 if settings.control else 1))


def cost_line(settings: DistillSettings, endpoints: int, bytes_each: int) -> str:
    """Return one sentence on the teacher's share of the work, the endpoints there will be, and how to have them cheaper.

    Args:
        settings: The section distill.
        endpoints: How many there will be.
        bytes_each: Of one endpoint.

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
    """Yield what is said before a distillation. A set of endpoints that does not fit is a UserError.

    Args:
        settings: Those of the run.
        rollout: The teacher.
        shape: Of a joint field.

    Yields:
        One line each.
    """
    d = settings.distill
    yield weights_line(d)
    if d.endpoints and d.source != "shards":
        yield f"distill.endpoints is not read: distill.source={d.source}"
    if d.takes_endpoints:
        open_supply(settings, rollout)  # for its refusals alone
        yield cost_line(d, needed(settings), 4 * math.prod(shape))


def weights_line(settings: DistillSettings) -> str:
    """Return one sentence: what the residual weighs, as equation, objective and command together have it."""
    weights = [f"{name} {weight:g}" for name, weight in active_weights(settings).items() if weight > 0]
    if not weights:
        return "the residual is left out: no term that distill.norm chooses has distill.weights times physics_weight above 0"
    begins = f"from step {int(settings.physics_from * settings.steps)} of {settings.steps}"
    times = f"distill.weights times distill.physics_weight={settings.physics_weight:g}"
    return f"the residual weighs {', '.join(weights)} ({times}), {begins}"
