"""Reaction-diffusion equations on cells with zero flux at the edges, by numpy cosine transforms.

The cosine modes diagonalise the 5-point Laplacian of cells whose ghost cells repeat the edge. Must not know `ops`, whose
residual is a check on this solver only as long as the two share no code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pidscale.pde.solve.stepping import integrate


@lru_cache(maxsize=16)
def _modes(cells: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Return orthonormal cosine modes at the cell centres [n, n] and their eigenvalues of -d2/dx2 [n]."""
    number = np.arange(cells)
    modes = np.sqrt(2.0 / cells) * np.cos(np.pi * np.outer(number + 0.5, number) / cells)
    modes[:, 0] = np.sqrt(1.0 / cells)
    return modes, (2.0 - 2.0 * np.cos(np.pi * number / cells)) * (cells / length) ** 2


def react_and_diffuse(
    initial: np.ndarray,
    diffusion: np.ndarray,
    reaction: Callable[[np.ndarray], np.ndarray],
    times: np.ndarray,
    extent: tuple[float, float],
    longest: float | None = None,
) -> np.ndarray:
    """Solve s_t = diffusion lap s + reaction(s) by Runge-Kutta steps of order 4 with an exact factor for diffusion.

    Args:
        initial: State at the first time [S, Y, X].
        diffusion: Diffusivity of each species [S].
        reaction: Rate [S, Y, X] of a state [S, Y, X].
        times: Times of the frames [T].
        extent: Lengths (Ly, Lx) of the domain.
        longest: Longest time step; None takes 0.05, or less where fast diffusion would reduce the order of the steps.

    Returns:
        Frames, float64 [T, S, Y, X].
    """
    longest = 0.05 * min(1.0, 0.02 / float(np.max(diffusion))) if longest is None else longest
    modes_y, mu_y = _modes(initial.shape[1], extent[0])
    modes_x, mu_x = _modes(initial.shape[2], extent[1])
    decay = diffusion[:, None, None] * (mu_y[:, None] + mu_x[None, :])

    def forward(s: np.ndarray) -> np.ndarray:
        return modes_y.T @ s @ modes_x

    def backward(s: np.ndarray) -> np.ndarray:
        return modes_y @ s @ modes_x.T

    def rate(s: np.ndarray) -> np.ndarray:
        return forward(reaction(backward(s)))

    later = integrate(forward(initial), decay, rate, times, longest)
    return np.stack([initial, *(backward(s) for s in later)])
