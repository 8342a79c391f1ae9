"""More network calls for a better sample: the student's field is made noisy again, and its teacher removes the noise.

A student that was trained for several calls, whose card has levels of such calls, removes the noise itself.

A student of the flow, whose card has a network level, maps its noise to the state of the flow at any noise level, so it makes
the noisy state itself. To the field of any other student new noise is added. From there every step of the solver is one call
of the teacher. Knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.diffusion.noise import karras_levels
from pidscale.diffusion.solvers import integrate, one_step, renoised
from pidscale.generator.generator import Teacher
from pidscale.generator.one_step import OneStepGenerator

SOLVER = "dpm2m"  # one call a step
LOWEST = 0.02  # lowest noise level of a call; the last step leads from there to a clean field


def start_level(calls: int) -> float:
    """Return the noise level that `calls` calls of a teacher begin at: more calls can correct more."""
    return 0.15 * calls**0.5


def several_calls(
    student: OneStepGenerator, eps_BCYX: Tensor, again_KBCYX: Sequence[Tensor], params_BP: Tensor
) -> Tensor:
    """Generate fields from noise by several calls of a student that was trained for them, without gradients.

    Args:
        student: The student. Its card has levels of at least as many further calls.
        eps_BCYX: Standard normal noise that the student is called with first.
        again_KBCYX: Standard normal noise of each further call.
        params_BP: Varying parameters.

    Returns:
        Fields [B, C, Y, X] in units of the model.
    """
    levels = student.card.call_levels[-len(again_KBCYX) :]
    with torch.no_grad():
        network = student.conditioned_on(params_BP)
        x = one_step(network, eps_BCYX, student.noise.sigma_max)
        for level, again in zip(levels, again_KBCYX, strict=True):
            x = renoised(network, x, again, level)
    return x


def more_calls(
    student: OneStepGenerator,
    teacher: Teacher | None,
    eps_BCYX: Tensor,
    again_BCYX: Tensor,
    params_BP: Tensor,
    calls: int,
) -> Tensor:
    """Generate fields from noise by one call of a student and `calls` calls of its teacher, without gradients.

    Args:
        student: The student.
        teacher: Its teacher; None if it was not loaded.
        eps_BCYX: Standard normal noise that the student is called with.
        again_BCYX: Standard normal noise that is added to the student's field.
        params_BP: Varying parameters.
        calls: Number of calls of the teacher.

    Returns:
        Fields [B, C, Y, X] in units of the model.

    Raises:
        UserError: When there is no teacher.
    """
    if teacher is None:
        raise UserError(
            f"nfe={calls + 1}: needs the teacher, which was not loaded; give its folder, load_student(path, teacher=...)"
        )
    with torch.no_grad():
        top = start_level(calls)
        levels = karras_levels(LOWEST, top, calls) if calls > 1 else torch.tensor([top], dtype=torch.float64)
        noisy = _noisy(student, eps_BCYX, again_BCYX, params_BP, top)
        return integrate(
            teacher.conditioned_on(params_BP), noisy / top, torch.cat([levels, levels.new_zeros(1)]), SOLVER
        )


def _noisy(student: OneStepGenerator, eps: Tensor, again: Tensor, params: Tensor, level: float) -> Tensor:
    """Return a state of the flow at a noise level, in units of the model."""
    sigma_max = student.noise.sigma_max
    if student.card.network_level is None:
        return one_step(student.conditioned_on(params), eps, sigma_max) + level * again
    share = level / sigma_max
    return share * sigma_max * eps + (1 - share) * one_step(student.conditioned_on(params), eps, sigma_max, level)
