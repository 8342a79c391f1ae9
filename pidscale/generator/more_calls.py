"""More network calls for a better sample: the student's field is made noisy again, and the teacher takes the noise away.

A student of the flow is a map to every noise level, so that it goes to the noisy state itself; any other student's field
gets new noise. The student's call is the first, and each step of the teacher's solver from there is one more. Knows no files.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.diffusion.noise import karras_levels
from pidscale.diffusion.solvers import integrate, one_step
from pidscale.generator.generator import OneCall, Teacher

SOLVER = "dpm2m"  # one call a step
LOWEST = 0.02  # of the levels that are visited; the last step leads from there to a clean field


def start_level(calls: int) -> float:
    """The level from which so many teacher calls begin: more of them can mend more."""
    return 0.15 * calls**0.5


def more_calls(
    student: OneCall, teacher: Teacher | None, eps_BCYX: Tensor, again_BCYX: Tensor, params_BP: Tensor, calls: int
) -> Tensor:
    """Return fields in the units of the model from noise, by one call of the student and `calls` of its teacher.

    Args:
        student: The student.
        teacher: Its teacher; None where it was not loaded.
        eps_BCYX: Noise of the student's call.
        again_BCYX: Noise that is added to the student's field.
        params_BP: Varying parameters.
        calls: Calls of the teacher.

    Returns:
        Fields [B, C, Y, X].

    Raises:
        UserError: When there is no teacher.
    """
    if teacher is None:
        raise UserError(
            f"nfe={calls + 1}: asks for the teacher, which is not with this student; load_student(path, teacher=its folder)"
        )
    with torch.no_grad():
        top = start_level(calls)
        levels = karras_levels(LOWEST, top, calls) if calls > 1 else torch.tensor([top], dtype=torch.float64)
        noisy = _noisy(student, eps_BCYX, again_BCYX, params_BP, top)
        return integrate(
            teacher.conditioned_on(params_BP), noisy / top, torch.cat([levels, levels.new_zeros(1)]), SOLVER
        )


def _noisy(student: OneCall, eps: Tensor, again: Tensor, params: Tensor, level: float) -> Tensor:
    """A state of the flow at a level."""
    sigma_max = student.noise.sigma_max
    if student.card.network_level is None:
        return one_step(student.conditioned_on(params), eps, sigma_max) + level * again
    share = level / sigma_max
    return share * sigma_max * eps + (1 - share) * one_step(student.conditioned_on(params), eps, sigma_max, level)
