"""Solver steps for any equation from its residual alone: preconditioned Gauss-Newton, for equations without a solver.

A step minimises the squared residual of the linearised equation, in the equation's dual norm and with its boundary term. It
takes a few conjugate gradients on J^T W J d = -J^T W R, whose products come from automatic differentiation, preconditioned
by the inverse Laplacian of each channel. That suits steady equations; for frames in time, `flow.Flow` has sweeps. Knows no
files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.ops.gate import Gate, pick
from pidscale.ops.krylov import conjugate_gradients
from pidscale.ops.spectral import inverse_laplacian
from pidscale.ops.window import Window
from pidscale.pde.base import Pde, solution_mask
from pidscale.pde.evolution import share_of_size
from pidscale.pde.terms import Term

Residuals = Callable[[Tensor], dict[str, Tensor]]

INNER = 12  # conjugate gradients in a step


def gauss_newton(pde: Pde, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
    """Return fields after Gauss-Newton steps on the solution; a step that does not lower a sample's residual is not taken.

    An equation has a head by it in three lines:

        def correct(self, window, fields_BCYX, params_BP, steps):
            return gauss_newton(self, window, fields_BCYX, params_BP, steps)

    Args:
        pde: The equation.
        window: Window of whole fields.
        fields_BCYX: Joint physical fields.
        params_BP: Varying parameters of each sample.
        steps: Number of steps, of INNER conjugate gradients each.

    Returns:
        Joint physical fields, their inputs unchanged.

    Raises:
        UserError: When the window holds a part of a field.
    """
    if window.holders > 1:
        raise UserError(f"{pde.name}: its solver steps take whole fields only; set cluster.space=1")
    free = solution_mask(pde, window.grid).to(fields_BCYX.device)

    u = fields_BCYX
    for _ in range(steps):
        gate = Gate()
        entry, params = gate(u), gate(params_BP)

        def residuals(u: Tensor, params: Tensor = params) -> dict[str, Tensor]:
            return {name: term.values for name, term in pde.residual(window, u, params).items()}

        terms = pde.residual(window, entry, params)
        moved = entry + torch.where(free, _newton_step(pde, window, entry, free, terms, residuals), 0.0)
        gate.passes_B = _size(pde, window, pde.residual(window, moved, params)) < _size(pde, window, terms)
        u = pick(gate.passes_B, moved, u)
    return u


def _size(pde: Pde, window: Window, terms: dict[str, Term]) -> Tensor:
    """Return what a step lowers [B]: that of the interior, and the boundary term."""
    size = share_of_size(pde, terms["interior"], window)
    return size + terms["boundary"].share() if "boundary" in terms else size


def _newton_step(
    pde: Pde, window: Window, u_BCYX: Tensor, free_CYX: Tensor, terms: dict[str, Term], residuals: Residuals
) -> Tensor:
    """Return the change of the fields that minimises the residual of the linearised equation."""

    def half_size(values: dict[str, Tensor]) -> Tensor:
        parts = {name: replace(terms[name], values=own) for name, own in values.items()}
        return _size(pde, window, parts).sum() / 2

    weighed = torch.func.grad(half_size)  # W, because the size is quadratic
    values, pulled = torch.func.vjp(residuals, u_BCYX)[:2]

    def product(change_BCYX: Tensor) -> Tensor:
        moved = torch.func.jvp(residuals, (u_BCYX,), (torch.where(free_CYX, change_BCYX, 0.0),))[1]
        return torch.where(free_CYX, pulled(weighed(moved))[0], 0.0)

    slope = torch.where(free_CYX, pulled(weighed(values))[0], 0.0)
    return conjugate_gradients(
        residual=lambda d: -slope - product(d),
        operator=product,
        precondition=lambda g: torch.where(free_CYX, inverse_laplacian(window, g), 0.0),
        guess=torch.zeros_like(u_BCYX),
        steps=INNER,
        total=window.total,
    )
