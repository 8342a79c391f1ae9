"""Exact solution of (lap + c) u = f on nodal grids with u = 0 on the edges, by sine expansion.

The sine modes diagonalise the 5-point Laplacian, so the discrete equation is solved to rounding. May not know `ops`: what is
solved here and what is measured there must agree by being right.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=16)
def _modes(points: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal sine modes at the inner nodes [n, n], and the eigenvalues of -d2/dx2 there [n]."""
    inner = points - 2
    place = np.arange(1, inner + 1) / (inner + 1)
    number = np.arange(1, inner + 1)
    modes = np.sqrt(2.0 / (inner + 1)) * np.sin(np.pi * np.outer(place, number))
    spacing = length / (inner + 1)
    return modes, (2.0 - 2.0 * np.cos(np.pi * number / (inner + 1))) / spacing**2


def eigenvalues(shape: tuple[int, int], extent: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Eigenvalues of the discrete -lap at the inner nodes, [Y - 2, X - 2]."""
    return _modes(shape[0], extent[0])[1][:, None] + _modes(shape[1], extent[1])[1][None, :]


def solve_shifted_poisson(source: np.ndarray, shift: float, extent: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Solve lap u + shift u = f, float64 [Y, X] from f [Y, X], second order; f on the edges does not matter.

    Raises ValueError where the shift is an eigenvalue of -lap, so that there is no solution or no single one.
    """
    (left, _), (right, _) = _modes(source.shape[0], extent[0]), _modes(source.shape[1], extent[1])
    factor = shift - eigenvalues(source.shape, extent)
    if np.abs(factor).min() < 1e-9 * np.abs(factor).max():
        raise ValueError(f"shift={shift}: an eigenvalue of -lap on this grid")
    solution = np.zeros_like(source, dtype=np.float64)
    solution[1:-1, 1:-1] = left @ ((left.T @ source[1:-1, 1:-1] @ right) / factor) @ right.T
    return solution
