"""Sparse direct solution of elliptic equations on nodal grids, by assembling face conductances into a matrix.

Must not know `ops`, whose residual is a check on this solver only as long as the two share no code.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu


def solve_diffusion(
    coefficient: np.ndarray, source: np.ndarray, extent: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Solve -div(a grad u) = f on nodes with u = 0 on the edges, second order.

    Finite volumes around each inner node: the flux through a face is the mean coefficient of its two nodes times the slope,
    and the four fluxes of a volume balance its source.

    Args:
        coefficient: a at the nodes, above 0 [Y, X].
        source: f at the nodes [Y, X].
        extent: Lengths (Ly, Lx) of the domain.

    Returns:
        u at the nodes, float64 [Y, X].
    """
    height, width = coefficient.shape
    step_y = extent[0] / (height - 1)
    step_x = extent[1] / (width - 1)
    number = np.full((height, width), -1)
    number[1:-1, 1:-1] = np.arange((height - 2) * (width - 2)).reshape(height - 2, width - 2)
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    diagonal = np.zeros((height - 2) * (width - 2))
    for axis, conductance in ((0, step_x / step_y), (1, step_y / step_x)):
        face = np.diff(coefficient, axis=axis) / 2 + np.delete(coefficient, -1, axis=axis)
        left = np.delete(number, -1, axis=axis)
        right = np.delete(number, 0, axis=axis)
        weight = face * conductance
        for here, there in ((left, right), (right, left)):
            inside = here >= 0
            np.add.at(diagonal, here[inside], weight[inside])
            both = inside & (there >= 0)
            rows.append(here[both])
            columns.append(there[both])
            values.append(-weight[both])
    order = np.arange(diagonal.size)
    matrix = sparse.csc_matrix(
        (
            np.concatenate([*values, diagonal]),
            (np.concatenate([*rows, order]), np.concatenate([*columns, order])),
        )
    )
    load = (source * (step_y * step_x))[1:-1, 1:-1].ravel()
    solution = np.zeros((height, width))
    solution[1:-1, 1:-1] = splu(matrix, permc_spec="MMD_AT_PLUS_A").solve(load).reshape(height - 2, width - 2)
    return solution
