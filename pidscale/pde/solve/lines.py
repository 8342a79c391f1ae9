"""Diffusion along a line whose values at both ends are given over time, by sine modes on a finer line.

Must not know `ops`, whose residual is a check on this solver only as long as the two share no code.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dst
from scipy.interpolate import CubicSpline

FINE = 512  # the line is resolved on at least so many intervals
SUBSTEPS = 4  # steps between two times


def diffuse(rows: np.ndarray, viscosity: float, times: np.ndarray, length: float) -> np.ndarray:
    """Solve u_t = viscosity u_yy from the initial state and the values at both ends.

    Second differences on a line of at least FINE intervals, on which sine modes are independent of each other. Each mode is
    integrated exactly for end values that are linear within a substep and follow a cubic spline between times.

    Args:
        rows: Velocity [T, Y], of which the first row and both end columns are used.
        viscosity: Viscosity.
        times: Times of the rows, at even intervals [T].
        length: Length of the line.

    Returns:
        `rows` with the solution at all other points, float64 [T, Y].
    """
    points = rows.shape[1]
    every = -(-FINE // (points - 1))
    inner = every * (points - 1) - 1
    spacing = length / (inner + 1)
    state = CubicSpline(np.linspace(0, length, points), rows[0])(np.linspace(0, length, inner + 2))[1:-1]
    finer = np.linspace(times[0], times[-1], SUBSTEPS * (len(times) - 1) + 1)
    ends = CubicSpline(times, rows[:, [0, -1]])(finer)
    number = np.arange(1, inner + 1)
    shape = np.sin(np.pi * number / (inner + 1)) * np.sqrt(2.0 / (inner + 1))
    push = viscosity / spacing**2 * (ends[:, :1] * shape + ends[:, 1:] * shape * np.where(number % 2, 1.0, -1.0))
    step = finer[1] - finer[0]
    z = -viscosity * (2.0 - 2.0 * np.cos(np.pi * number / (inner + 1))) / spacing**2 * step
    decay = np.exp(z)
    first = step * np.expm1(z) / z
    second = step * (np.expm1(z) - z) / z**2
    modes = dst(state, type=1, norm="ortho")
    found = rows.copy()
    for i in range(1, len(finer)):
        modes = decay * modes + first * push[i - 1] + second * (push[i] - push[i - 1])
        if i % SUBSTEPS == 0:
            found[i // SUBSTEPS, 1:-1] = dst(modes, type=1, norm="ortho")[every - 1 :: every][: points - 2]
    return found
