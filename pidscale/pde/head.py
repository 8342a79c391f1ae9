"""The physics head: steps of an equation's own solver behind any generator, so that its solutions follow from its inputs.

The entry points through which the rest of the system corrects fields. Knows no equation, no models and no files.
"""

from __future__ import annotations

from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError
from pidscale.ops.gate import Gate, pick
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Correcting, Pde
from pidscale.pde.parameters import given_params
from pidscale.pde.residuals import check_fields
from pidscale.precision import float32_island

LARGEST = 64  # steps


@sheltered
def correct(pde: Pde, grid: Grid, fields_BCYX: Tensor, params_BP: Tensor | None = None, steps: int = 4) -> Tensor:
    """Return fields with their solution moved towards the equation by steps of its own solver.

    Inputs are returned as they are. Runs in the dtype of the fields, outside autocast. Differentiable. A UserError says that
    the equation has no solver of its own, or that the number of steps or the fields are out of range.

    Args:
        pde: The equation.
        grid: Grid of the fields.
        fields_BCYX: Joint physical fields, float32 or float64 [B, C, Y, X].
        params_BP: Varying parameters of each sample [B, P].
        steps: Number of steps; 0 returns the fields.

    Returns:
        Joint physical fields [B, C, Y, X].
    """
    check_head(pde, steps)
    return correct_rows(pde, Window(grid), fields_BCYX, params_BP, steps)


def correct_rows(pde: Pde, window: Window, fields_BCyX: Tensor, params_BP: Tensor | None, steps: int) -> Tensor:
    """Return the rows at hand of what `correct` returns.

    A sample for which the steps lead to values that are not finite stays as it was, and so does its gradient.

    Args:
        pde: The equation, one that `check_head` accepts.
        window: The rows at hand and the way to ask for the others.
        fields_BCyX: Joint physical fields, the rows at hand.
        params_BP: Varying parameters of each sample.
        steps: Number of steps.

    Returns:
        Joint physical fields, the rows at hand.
    """
    if steps == 0:
        return fields_BCyX
    assert isinstance(pde, Correcting)
    check_fields(pde, window, fields_BCyX)
    with float32_island(fields_BCyX.device):
        gate = Gate()
        found = pde.correct(window, gate(fields_BCyX), gate(given_params(pde, fields_BCyX, params_BP)), steps)
        broken = window.total((~found.detach().isfinite()).flatten(1).sum(dim=1, dtype=found.dtype))
        gate.passes_B = broken == 0
        return pick(gate.passes_B, found, fields_BCyX)


def has_head(pde: Pde) -> bool:
    """Return whether an equation has a solver of its own."""
    return isinstance(pde, Correcting)


def is_exact(pde: Pde) -> bool:
    """Return whether one step of an equation's own solver leaves nothing to correct."""
    return bool(getattr(pde, "exact", False))


def check_head(pde: Pde, steps: int, key: str = "head") -> None:
    """Check that an equation takes so many steps.

    Args:
        pde: The equation.
        steps: Number of steps.
        key: Name of the setting, for the message.

    Raises:
        UserError: When it does not.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or not 0 <= steps <= LARGEST:
        raise UserError(f"{key}={steps!r}: expected a number of solver steps from 0 to {LARGEST}")
    if steps and not has_head(pde):
        raise UserError(f"{key}={steps}: {pde.name} has no solver steps of its own (a method `correct`); set {key}=0")
