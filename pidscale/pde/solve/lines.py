"""Diffusion along a line between two ends whose values are given over time, by sine modes on a finer line.

May not know `ops`: what is solved here and what is measured there must agree by being right.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dst
from scipy.interpolate import CubicSpline

FINE = 512  # least intervals that the line is resolved on
SUBSTEPS = 4  # between two times


def diffuse(rows: np.ndarray, viscosity: float, times: np.ndarray, length: float) -> np.ndarray:
    """u_t = viscosity u_yy, float64 [T, Y] at even `times`, from the first row and both end columns of `rows` [T, Y].

    Second differences on a line at least FINE intervals fine, where sine modes are independent of each other; each is
    integrated exactly for end values that go linearly within a substep of their cubic spline.
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
    decay, first, second = np.exp(z), step * np.expm1(z) / z, step * (np.expm1(z) - z) / z**2
    modes, found = dst(state, type=1, norm="ortho"), rows.copy()
    for i in range(1, len(finer)):
        modes = decay * modes + first * push[i - 1] + second * (push[i] - push[i - 1])
        if i % SUBSTEPS == 0:
            found[i // SUBSTEPS, 1:-1] = dst(modes, type=1, norm="ortho")[every - 1 :: every][: points - 2]
    return found
