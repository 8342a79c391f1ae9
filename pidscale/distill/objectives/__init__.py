"""Training objectives of the student: one module for each, and a dict of the objectives by name."""

from __future__ import annotations

from pidscale.config import Settings, UserError, exact
from pidscale.distill.objectives.base import Objective
from pidscale.distill.objectives.boot import Boot
from pidscale.distill.objectives.consistency import Consistency
from pidscale.distill.objectives.dmd import Matching
from pidscale.distill.objectives.pid import Pid
from pidscale.distill.objectives.piddm import Piddm
from pidscale.distill.objectives.progressive import Progressive
from pidscale.distill.objectives.shortcut import Shortcut
from pidscale.generator.generator import Generator
from pidscale.ops.window import Window
from pidscale.pde.constraints import check_constraints
from pidscale.pde.head import check_head

OBJECTIVES: dict[str, type[Objective]] = {  # keys are values of distill.objective.name
    "piddm": Piddm,
    "pid": Pid,
    "dm": Matching,
    "consistency": Consistency,
    "boot": Boot,
    "progressive": Progressive,
    "shortcut": Shortcut,
}


def open_objective(settings: Settings, teacher: Generator, window: Window) -> Objective:
    """Return the selected objective; its `physics` is not set yet.

    Raises UserError where the equation has no such constraint or head, or a noise level is too high.
    """
    check_constraints(teacher.pde, settings.distill.constraints)
    check_head(teacher.pde, settings.distill.head, "distill.head")
    objective: Objective = settings.distill.needs(settings.distill, teacher, window, seed=settings.run.seed)
    if any(level > teacher.noise.sigma_max for level in objective.call_levels):
        raise UserError(
            f"distill.objective.call_levels={list(objective.call_levels)}: above the highest level of the teacher, "
            f"{exact(teacher.noise.sigma_max)}; lower them"
        )
    return objective
