"""Solvers of the probability-flow ODE dx / dsigma = (x - D(x, sigma)) / sigma. Knows no ranks, files or equations.

Each solver is one function: it takes the state at the first level and yields the state at every level after it. The number of
steps is fixed by the levels, and no step depends on values of the fields. `SOLVERS` names the solvers; another one is a
function and an entry there (and its name in `config.SOLVERS`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.diffusion.denoiser import Denoiser
from pidscale.precision import float32_or_better


def euler(denoiser: Denoiser, x_BCYX: Tensor, levels: Sequence[float]) -> Iterator[Tensor]:
    """Solve by Euler's method: first order, one call a step.

    Karras et al. 2022 (Elucidating the design space of diffusion-based generative models), algorithm 1 without lines 6 to 8.

    Args:
        denoiser: The denoiser D.
        x_BCYX: The state [B, C, Y, X] at the first level, in units of the model.
        levels: The noise levels from sigma_max down to 0.

    Yields:
        The state [B, C, Y, X] at each level after the first one.
    """
    for here, there in itertools.pairwise(levels):
        slope = (x_BCYX - _denoised(denoiser, x_BCYX, here)) / here
        x_BCYX = x_BCYX + (there - here) * slope
        yield x_BCYX


def heun(denoiser: Denoiser, x_BCYX: Tensor, levels: Sequence[float]) -> Iterator[Tensor]:
    """Solve by Heun's method: second order, two calls a step, one call for the last step, whose level is 0.

    Karras et al. 2022, algorithm 1.

    Args:
        denoiser: The denoiser D.
        x_BCYX: The state [B, C, Y, X] at the first level, in units of the model.
        levels: The noise levels from sigma_max down to 0.

    Yields:
        The state [B, C, Y, X] at each level after the first one.
    """
    for here, there in itertools.pairwise(levels):
        slope = (x_BCYX - _denoised(denoiser, x_BCYX, here)) / here
        ahead = x_BCYX + (there - here) * slope
        if there > 0:
            slope_ahead = (ahead - _denoised(denoiser, ahead, there)) / there
            ahead = x_BCYX + (there - here) * 0.5 * (slope + slope_ahead)
        x_BCYX = ahead
        yield x_BCYX


def dpm2m(denoiser: Denoiser, x_BCYX: Tensor, levels: Sequence[float]) -> Iterator[Tensor]:
    """Solve by DPM-Solver++(2M): second order, one call a step; the first and the last step are of first order.

    Lu et al. 2022 (DPM-Solver++: Fast solver for guided sampling of diffusion probabilistic models), algorithm 2. With
    alpha = 1 its h is ln(here / there), and exp(-h) is there / here.

    Args:
        denoiser: The denoiser D.
        x_BCYX: The state [B, C, Y, X] at the first level, in units of the model.
        levels: The noise levels from sigma_max down to 0.

    Yields:
        The state [B, C, Y, X] at each level after the first one.
    """
    last_clean: Tensor | None = None
    last_h = 0.0
    for here, there in itertools.pairwise(levels):
        clean = _denoised(denoiser, x_BCYX, here)
        ahead = x_BCYX + (there - here) * ((x_BCYX - clean) / here)  # (there / here) x + (1 - there / here) clean
        if there > 0:
            h = math.log(here / there)
            if last_clean is not None:
                ahead = ahead + (1 - there / here) * (0.5 * h / last_h) * (clean - last_clean)
            last_clean = clean
            last_h = h
        x_BCYX = ahead
        yield x_BCYX


def _denoised(denoiser: Denoiser, x_BCYX: Tensor, level: float) -> Tensor:
    """Return D(x, level), all samples at one level."""
    return denoiser(x_BCYX, x_BCYX.new_full((x_BCYX.shape[0],), level))


@dataclass(frozen=True)
class Solver:
    """A solver, with its cost in network calls.

    Attributes:
        states: Takes a denoiser, the state at the first level and all levels; yields the state at each further level.
        calls: Returns the number of network calls (NFE) of a number of steps.
    """

    states: Callable[[Denoiser, Tensor, Sequence[float]], Iterator[Tensor]]
    calls: Callable[[int], int]


SOLVERS: dict[str, Solver] = {
    "euler": Solver(euler, lambda steps: steps),
    "heun": Solver(heun, lambda steps: 2 * steps - 1),
    "dpm2m": Solver(dpm2m, lambda steps: steps),
}


def integrate(
    denoiser: Denoiser,
    eps_BCYX: Tensor,
    levels: Tensor,
    solver: str = "heun",
    visited: list[Tensor] | None = None,
) -> Tensor:
    """Integrate the probability-flow ODE from noise to clean fields.

    Args:
        denoiser: The denoiser D.
        eps_BCYX: Standard normal noise [B, C, Y, X].
        levels: The noise levels, float64 [K + 1], from sigma_max down to 0.
        solver: A key of `SOLVERS`.
        visited: A list that receives the K + 1 states from sigma_max * eps to the result.

    Returns:
        The clean fields [B, C, Y, X] in units of the model: float64 for noise in float64, else float32.

    Raises:
        ValueError: When there is no solver of this name.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r}: expected one of {', '.join(SOLVERS)}")
    sigmas: list[float] = levels.tolist()
    x_BCYX = float32_or_better(eps_BCYX) * sigmas[0]
    if visited is not None:
        visited.append(x_BCYX)
    for state in SOLVERS[solver].states(denoiser, x_BCYX, sigmas):
        x_BCYX = state
        if visited is not None:
            visited.append(x_BCYX)
    return x_BCYX


def heun_step(denoiser: Denoiser, x_BCYX: Tensor, here_B: Tensor, there_B: Tensor) -> Tensor:
    """Take one step of Heun's method, with separate levels for each sample (Karras et al. 2022, algorithm 1).

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


def unrolled(denoiser: Denoiser, x_BCYX: Tensor, levels_KB: Tensor) -> tuple[Tensor, Tensor]:
    """Take steps of Euler's method, with separate levels for each sample; gradients go through all of them.

    Args:
        denoiser: The denoiser; it is called once for each step.
        x_BCYX: States at the first levels.
        levels_KB: Falling levels of the states, one row more than there are steps; the last row may be 0.

    Returns:
        The denoised fields of the first call, and the states at the last levels.
    """
    first: Tensor | None = None
    for here, there in itertools.pairwise(levels_KB):
        clean = denoiser(x_BCYX, here)
        first = clean if first is None else first
        x_BCYX = clean + (there / here).reshape(-1, 1, 1, 1) * (x_BCYX - clean)
    assert first is not None
    return first, x_BCYX


def renoised(denoiser: Denoiser, x_BCYX: Tensor, eps_BCYX: Tensor, level: float) -> Tensor:
    """Return what one call makes of clean fields with noise added (Song et al., Consistency models, 2023, algorithm 1).

    Args:
        denoiser: The denoiser.
        x_BCYX: Clean fields in units of the model.
        eps_BCYX: Standard normal noise.
        level: Noise level of the call.

    Returns:
        Clean fields [B, C, Y, X] in units of the model.
    """
    return _denoised(denoiser, x_BCYX + level * eps_BCYX, level)


def one_step(denoiser: Denoiser, eps_BCYX: Tensor, sigma_max: float, network_level: float | None = None) -> Tensor:
    """Return the sample of a student, d(eps) = D(sigma_max eps, sigma_max), with one call.

    Args:
        denoiser: The student's denoiser.
        eps_BCYX: Standard normal noise [B, C, Y, X].
        sigma_max: The level that the noise is multiplied by.
        network_level: The level that the network is conditioned on; `sigma_max` if None.

    Returns:
        Clean fields [B, C, Y, X] in units of the model.
    """
    x = float32_or_better(eps_BCYX) * sigma_max
    level = x.new_full((x.shape[0],), sigma_max)
    if network_level is None:
        return denoiser(x, level)
    return denoiser(x, level, torch.full_like(level, network_level))
