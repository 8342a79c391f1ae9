"""Preconditioned conjugate gradients for a batch of symmetric systems. Knows no equations, no grids and no ranks.

Shapes: unknowns [B, ...], the part at hand; every sample has coefficients of its own. Autograd unrolls the steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Form = Callable[[Tensor], Tensor]


def conjugate_gradients(
    residual: Form, operator: Form, precondition: Form, guess: Tensor, steps: int, total: Form
) -> Tensor:
    """Return the guess after steps of preconditioned conjugate gradients for A u = b.

    The error in the energy norm, sqrt(e A e), falls with each step. The residual is computed from the unknowns each time,
    so that rounding errors do not add up, and a step goes to the minimum along its direction whatever rounding has made of
    it, so that further steps do no harm where nothing is left to correct. Each step takes two sums over the processes that
    share a field.

    Args:
        residual: b - A u as a function of u.
        operator: A, symmetric and positive definite.
        precondition: An approximate inverse of A, symmetric and positive definite.
        guess: Unknowns to begin with [B, ...], the part at hand.
        steps: Number of steps.
        total: Sum of shares over all processes that share a field.

    Returns:
        Unknowns [B, ...].
    """
    u = guess
    if steps < 1:
        return u
    left = residual(u)
    direction = precondition(left)
    size = total(_dot(left, direction))
    for step in range(steps):
        ahead = operator(direction)
        slope, curvature = total(torch.stack([_dot(left, direction), _dot(direction, ahead)]))
        u = u + _ratio(slope, curvature) * direction
        if step + 1 < steps:
            left = residual(u)
            lifted = precondition(left)
            before = size
            size = total(_dot(left, lifted))
            direction = lifted + _ratio(size, before) * direction
    return u


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the share of this process in the inner product of each sample, [B, 1, ...]."""
    return (one * other).sum(dim=tuple(range(1, one.ndim)), keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return the quotient, 0 where the divisor is not above 0: there is nothing left to correct."""
    positive = below > 0
    return torch.where(positive, above / torch.where(positive, below, 1.0), 0.0)
