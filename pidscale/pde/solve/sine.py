"""Solution of (lap + c) u = f on nodal grids with u = 0 on the edges, by sine expansion.

The sine modes diagonalise the 5-point Laplacian, so the discrete equation is solved to rounding. Must not know `ops`, whose
residual is a check on this solver only as long as the two share no code.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=16)
def _modes(points: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Return orthonormal sine modes at the inner nodes [n, n] and their eigenvalues of -d2/dx2 [n]."""
    inner = points - 2
    place = np.arange(1, inner + 1) / (inner + 1)
    number = np.arange(1, inner + 1)
    modes = np.sqrt(2.0 / (inner + 1)) * np.sin(np.pi * np.outer(place, number))
    spacing = length / (inner + 1)
    return modes, (2.0 - 2.0 * np.cos(np.pi * number / (inner + 1))) / spacing**2


def eigenvalues(shape: tuple[int, int], extent: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Return the eigenvalues of the discrete -lap at the inner nodes, [Y - 2, X - 2]."""
    return _modes(shape[0], extent[0])[1][:, None] + _modes(shape[1], extent[1])[1][None, :]


def solve_shifted_poisson(source: np.ndarray, shift: float, extent: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Solve lap u + shift u = f, second order.

    Args:
        source: f at the nodes [Y, X]; its values on the edges are not used.
        shift: Factor of u.
        extent: Lengths (Ly, Lx) of the domain.

    Returns:
        u at the nodes, float64 [Y, X].

    Raises:
        ValueError: When the shift is an eigenvalue of -lap, so that the solution does not exist or is not unique.
    """
    modes_y, _ = _modes(source.shape[0], extent[0])
    modes_x, _ = _modes(source.shape[1], extent[1])
    factor = shift - eigenvalues(source.shape, extent)
    if np.abs(factor).min() < 1e-9 * np.abs(factor).max():
        raise ValueError(f"shift={shift}: an eigenvalue of -lap on this grid")
    solution = np.zeros_like(source, dtype=np.float64)
    solution[1:-1, 1:-1] = modes_y @ ((modes_y.T @ source[1:-1, 1:-1] @ modes_x) / factor) @ modes_x.T
    return solution
