"""Checks of a teacher's objective before a run starts. Measures nothing."""

from __future__ import annotations

from pidscale.config import Settings, UserError


def check_objective(settings: Settings) -> None:
    """Check that the objective of the teacher can be trained with these settings.

    Args:
        settings: Settings of the run.

    Raises:
        UserError: When the objective needs a finished teacher and there is none, or needs whole weights on each worker.
    """
    t = settings.teacher
    own = t.own
    if t.needs.needs_start and t.start is None:
        raise UserError(
            f"teacher.objective.name={own.name}: goes on from a finished teacher; give its folder, teacher.start=RUN/teacher"
        )
    if t.needs.conflict_free(own) and settings.cluster.zero_stage == 3:
        raise UserError(
            f"teacher.objective.name={own.name}: combines gradients of whole weights, which ZeRO stage 3 divides; set "
            "cluster.zero_stage to 2 or less"
        )
