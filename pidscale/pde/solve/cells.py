"""Reaction and diffusion on cells with zero flux at the edges, by numpy cosine transforms.

The cosine modes diagonalise the 5-point Laplacian of cells whose ghost cells repeat the edge. May not know `ops`: what is
solved here and what is measured there must agree by being right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pidscale.pde.solve.stepping import frames


@lru_cache(maxsize=16)
def _modes(cells: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal cosine modes at the centres [n, n], and the eigenvalues of -d2/dx2 there [n]."""
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
    """s_t = diffusion lap s + reaction(s), float64 [T, S, Y, X] at `times` from s [S, Y, X]; diffusion [S].

    Runge-Kutta of order 4 after an exact factor for diffusion, steps of at most `longest` (0.05, less where diffusion is fast
    and would cost the steps their order). The first time is that of s.
    """
    longest = 0.05 * min(1.0, 0.02 / float(np.max(diffusion))) if longest is None else longest
    (up, mu_y), (right, mu_x) = _modes(initial.shape[1], extent[0]), _modes(initial.shape[2], extent[1])
    decay = diffusion[:, None, None] * (mu_y[:, None] + mu_x[None, :])

    def forward(s: np.ndarray) -> np.ndarray:
        return up.T @ s @ right

    def backward(s: np.ndarray) -> np.ndarray:
        return up @ s @ right.T

    def rate(s: np.ndarray) -> np.ndarray:
        return forward(reaction(backward(s)))

    later = frames(forward(initial), decay, rate, times, longest)
    return np.stack([initial, *(backward(s) for s in later)])
