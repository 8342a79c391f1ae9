"""Solvers of the probability-flow ODE dx / dsigma = (x - D(x, sigma)) / sigma. A fixed number of steps, no choices by value.

Knows no ranks, files or equations. Source: Karras et al. 2022, algorithm 1 without churn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SOLVERS = ("euler", "heun")
DenoiserCall = Callable[[Tensor, Tensor], Tensor]


def solve(
    denoiser: DenoiserCall,
    eps_BCYX: Tensor,
    levels: Tensor,
    solver: str = "heun",
    visited: list[Tensor] | None = None,
) -> Tensor:
    """Integrate from sigma_max * eps to a clean field, float32 [B, C, Y, X].

    levels: float64 [K + 1] from sigma_max to 0. solver: `euler` (K calls) or `heun` (2 K - 1 calls).
    visited: a list that receives the states on the way, the first one included. Raises ValueError for another solver.
    """
    calls(solver, 1)  # refuses an unknown solver
    x = eps_BCYX.float() * float(levels[0])
    batch = x.shape[0]
    for step in range(len(levels) - 1):
        here, there = float(levels[step]), float(levels[step + 1])
        if visited is not None:
            visited.append(x)
        slope = (x - denoiser(x, x.new_full((batch,), here))) / here
        ahead = x + (there - here) * slope
        if solver == "heun" and there > 0:
            slope_ahead = (ahead - denoiser(ahead, x.new_full((batch,), there))) / there
            ahead = x + (there - here) * 0.5 * (slope + slope_ahead)
        x = ahead
    if visited is not None:
        visited.append(x)
    return x


def calls(solver: str, steps: int) -> int:
    """Network calls (NFE) of a solve. Raises ValueError for an unknown solver."""
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r}: expected {' or '.join(SOLVERS)}")
    return 2 * steps - 1 if solver == "heun" else steps


def one_step(denoiser: DenoiserCall, eps_BCYX: Tensor, sigma_max: float) -> Tensor:
    """The student's sample d(eps) = D(sigma_max eps, sigma_max), one call."""
    x = eps_BCYX.float() * sigma_max
    return denoiser(x, torch.full((x.shape[0],), sigma_max, device=x.device))
