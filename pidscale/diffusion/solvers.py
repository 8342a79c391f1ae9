"""Solvers of the probability-flow ODE dx / dsigma = (x - D(x, sigma)) / sigma. A fixed number of steps, no choices by value.

Knows no ranks, files or equations. Sources: Karras et al. 2022, algorithm 1 without churn (`euler`, `heun`); Lu et al. 2022,
DPM-Solver++, its multistep method of order 2 in the data prediction (`dpm2m`): second order for one call a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pidscale.config import SOLVERS
from pidscale.precision import float32_or_better

DenoiserCall = Callable[..., Tensor]  # of fields and their levels; a student may be told another level besides


def integrate(
    denoiser: DenoiserCall,
    eps_BCYX: Tensor,
    levels: Tensor,
    solver: str = "heun",
    visited: list[Tensor] | None = None,
) -> Tensor:
    """Integrate from sigma_max * eps to a clean field [B, C, Y, X], float32, or float64 where the noise is.

    levels: float64 [K + 1] from sigma_max to 0. solver: `euler` or `dpm2m` (K calls), or `heun` (2 K - 1 calls).
    visited: a list that receives the states on the way, the first one included. Raises ValueError for another solver.
    """
    calls(solver, 1)  # refuses an unknown solver
    x = float32_or_better(eps_BCYX) * float(levels[0])
    batch = x.shape[0]
    before: tuple[Tensor, float] | None = None  # the last denoised field and its step in ln(sigma)
    for step in range(len(levels) - 1):
        here, there = float(levels[step]), float(levels[step + 1])
        if visited is not None:
            visited.append(x)
        clean = denoiser(x, x.new_full((batch,), here))
        slope = (x - clean) / here
        ahead = x + (there - here) * slope
        if solver == "heun" and there > 0:
            slope_ahead = (ahead - denoiser(ahead, x.new_full((batch,), there))) / there
            ahead = x + (there - here) * 0.5 * (slope + slope_ahead)
        if solver == "dpm2m" and there > 0:
            stride = math.log(here / there)
            if before is not None:
                ahead = ahead + (1 - there / here) * (0.5 * stride / before[1]) * (clean - before[0])
            before = clean, stride
        x = ahead
    if visited is not None:
        visited.append(x)
    return x


def heun_step(denoiser: DenoiserCall, x_BCYX: Tensor, here_B: Tensor, there_B: Tensor) -> Tensor:
    """Take one step of Heun's method, each sample between levels of its own (Karras et al. 2022, algorithm 1).

    Args:
        denoiser: The denoiser; it is called twice.
        x_BCYX: States at the levels `here`.
        here_B: Levels of the states.
        there_B: Levels to go to, above 0.

    Returns:
        States at the levels `there`.
    """
    here, there = (level.reshape(-1, 1, 1, 1) for level in (here_B, there_B))
    slope = (x_BCYX - denoiser(x_BCYX, here_B)) / here
    ahead = x_BCYX + (there - here) * slope
    slope_ahead = (ahead - denoiser(ahead, there_B)) / there
    return x_BCYX + (there - here) * 0.5 * (slope + slope_ahead)


def calls(solver: str, steps: int) -> int:
    """Network calls (NFE) of a solve. Raises ValueError for an unknown solver."""
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r}: expected one of {', '.join(SOLVERS)}")
    return 2 * steps - 1 if solver == "heun" else steps


def one_step(denoiser: DenoiserCall, eps_BCYX: Tensor, sigma_max: float, told: float | None = None) -> Tensor:
    """The student's sample d(eps) = D(sigma_max eps, sigma_max), one call. told: another level for its network."""
    x = float32_or_better(eps_BCYX) * sigma_max
    level = x.new_full((x.shape[0],), sigma_max)
    return denoiser(x, level) if told is None else denoiser(x, level, torch.full_like(level, told))
