"""Preconditioned conjugate gradients for a batch of symmetric systems. Knows no equations, no grids and no ranks.

Shapes: u_Byx unknowns of each sample, the part at hand; every sample has coefficients of its own. Unrolled by autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Form = Callable[[Tensor], Tensor]


def conjugate_gradients(
    residual: Form, operator: Form, precondition: Form, guess_Byx: Tensor, steps: int, total: Form
) -> Tensor:
    """Return the guess after steps of preconditioned conjugate gradients for A u = b.

    The error in the energy norm, sqrt(e A e), falls with each step. The residual is computed anew in each of them, so that
    rounding errors do not add up. Each step takes two sums over the processes that share a field.

    Args:
        residual: b - A u as a function of u.
        operator: A, symmetric and positive definite.
        precondition: An approximate inverse of A, symmetric and positive definite.
        guess_Byx: Unknowns to begin with [B, y, x], the part at hand.
        steps: Number of steps.
        total: Sum of shares over all processes that share a field.

    Returns:
        Unknowns [B, y, x].
    """
    u = guess_Byx
    if steps < 1:
        return u
    left = residual(u)
    direction = precondition(left)
    size = _dot(left, direction, total)
    for step in range(steps):
        ahead = operator(direction)
        u = u + _ratio(size, _dot(direction, ahead, total)) * direction
        if step + 1 < steps:
            left = residual(u)
            lifted = precondition(left)
            before, size = size, _dot(left, lifted, total)
            direction = lifted + _ratio(size, before) * direction
    return u


def _dot(one_Byx: Tensor, other_Byx: Tensor, total: Form) -> Tensor:
    """Return the inner product of each sample [B, 1, 1]."""
    return total((one_Byx * other_Byx).sum(dim=(1, 2), keepdim=True))


def _ratio(above_B11: Tensor, below_B11: Tensor) -> Tensor:
    """Return the quotient, 0 where the divisor is not above 0: there is nothing left to correct."""
    positive = below_B11 > 0
    return torch.where(positive, above_B11 / torch.where(positive, below_B11, 1.0), 0.0)
