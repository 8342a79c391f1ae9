"""Burgers' equation: waves that steepen until a small viscosity stops them.

    u_t + u u_x = nu u_xx   for 0 <= t <= 1, periodic in x on the unit interval

    u   velocity over time (rows) and position (columns), `points` of each; the first row is the initial state

The residual of the interval between two rows is (u[n + 1] - u[n]) / dt minus the mean over the interval of
nu u_xx - (u^2)_x / 2, which is taken from the cubic through four rows: fourth order in time. In space it is spectral, and the
square is exact because it is computed on 3/2 times as many points. The solver resolves the waves on at least 256 points and
returns the points of the grid, so that the floor shows what a coarse grid does not resolve. All quantities are
dimensionless. The viscosity nu = 0.01 is that of Li et al. (Fourier Neural Operator, 2021); the initial states are smoother
than theirs, with covariance (-d2/dx2 + 49)^-3 and root mean square 0.5.

Terms: `interior`, of every interval, relative to that of a velocity that does not change. The operators are periodic, so
there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import line_wave_numbers, resample
from pidscale.ops.sweeps import Sweeps, Waves, stable_substeps
from pidscale.ops.window import Window
from pidscale.pde.base import Channel
from pidscale.pde.evolution import RANGES
from pidscale.pde.parameters import read_params
from pidscale.pde.random_fields import periodic_line
from pidscale.pde.strip import Strip

FINE = 256  # the solver resolves waves on at least so many points
FASTEST = 3.0  # times the root mean square of the initial state: the speed for which sweeps are stable
LARGEST = 5.0  # generated initial velocities are clipped to this size before they are solved: ten times the usual size


@dataclass(frozen=True)
class BurgersParams:
    """Parameters of Burgers' equation and of its data.

    Attributes:
        viscosity: nu, 1e-3 to 1.
        size: Root mean square of the initial state, 1e-3 to 2.
        duration: Time from the first row to the last.
        alpha: Exponent of the covariance of the initial state.
        tau: Inverse length of that covariance.
    """

    viscosity: float = 0.01
    size: float = 0.5
    duration: float = 1.0
    alpha: float = 3.0
    tau: float = 7.0


@dataclass(frozen=True)
class Burgers(Strip):
    """u_t + u u_x = nu u_xx; rows are times, each periodic.

    Attributes:
        params: Parameters of the equation.
        name: Name of the equation.
        channels: The velocity.
    """

    params: BurgersParams = BurgersParams()
    name: str = "burgers"
    channels: tuple[Channel, ...] = (Channel("velocity", "1", "solution"),)

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Burgers:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        own = {"viscosity": (1e-3, 1.0), "size": (1e-3, 2.0)}
        return cls(read_params("burgers", BurgersParams, given, RANGES | own))

    def grid(self, points: int) -> Grid:
        """Return the grid of `points` times by `points` points."""
        return Grid((points, points), (self.params.duration, 1.0), "strip", "periodic")

    def initial(self, seed: int, counter: int, points: int) -> np.ndarray:
        """Return a smooth velocity, float64 [X]."""
        p = self.params
        return p.size * periodic_line(seed, "burgers/initial", counter, points, p.alpha, p.tau)

    def _integrate(self, initial: np.ndarray, grid: Grid) -> np.ndarray:
        """Return rows [T, X] from an initial state on a multiple of X points."""
        from pidscale.pde.solve.periodic import burgers

        times = np.linspace(0.0, grid.extent[0], grid.shape[0])
        return burgers(initial, self.params.viscosity, times)[:, :: len(initial) // grid.shape[1]]

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth, float64 [1, T, X]; no parameter varies."""
        return self._integrate(self.initial(seed, counter, _fine(grid.shape[1])), grid)[None], {}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return the first row with the rows that follow, [1, T, X], and how many of its values were clipped to LARGEST."""
        state = np.asarray(fields[0, 0], dtype=np.float64)
        points = len(state)
        fine = _fine(points)
        waves = np.fft.rfft(np.clip(state, -LARGEST, LARGEST), norm="forward")
        if points % 2 == 0:
            waves[-1] = 0.0  # the highest wave has no sign
        rows = self._integrate(np.fft.irfft(np.pad(waves, (0, fine // 2 + 1 - len(waves))), fine, norm="forward"), grid)
        rows = np.concatenate([state[None], rows[1:]])
        return rows[None], int((np.abs(state) > LARGEST).sum())

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the fields after sweeps of deferred correction.

        Messages of a sweep: two to each neighbour, one more below, and two transposes.
        """
        grid = window.grid
        points = grid.shape[1]
        p = self.params
        exponents = -p.viscosity * line_wave_numbers(points, grid.extent[1], fields_BCYX) ** 2
        sweeps = Sweeps(
            rate=lambda rows, _: self._rate(rows, grid),
            waves=Waves(exponents, torch.fft.rfft, lambda modes: torch.fft.irfft(modes, n=points)),
            interval=grid.spacing[0],
            substeps=stable_substeps(FASTEST * p.size, p.viscosity, math.pi / grid.spacing[1], grid.spacing[0]),
            size=lambda values: self.size(values, window),
            times=window,
        )
        return sweeps.correct(fields_BCYX[:, 0], params_BP, steps)[:, None]

    def interval_residual(self, u_BTX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the residual of the intervals between rows at all points, [B, T - 1, X]."""
        rows, rates = window.line_up(u_BTX, 1, 2, lambda rows: self._rate(rows, window.grid))
        return one_step_residual(rows, rates, window.grid.spacing[0], window.first, window.last)

    def _rate(self, u_BTX: Tensor, grid: Grid) -> Tensor:
        """Return nu u_xx - (u^2)_x / 2 of each row."""
        points = grid.shape[1]
        fine = 3 * points // 2
        k = line_wave_numbers(points, grid.extent[1], u_BTX)
        waves = torch.fft.rfft(u_BTX, norm="forward")
        wide = torch.fft.irfft(resample(waves, points, fine, -1, real=True), n=fine, norm="forward")
        squares = resample(torch.fft.rfft(wide.square(), norm="forward"), fine, points, -1, real=True)
        return torch.fft.irfft(-self.params.viscosity * k**2 * waves - 0.5j * k * squares, n=points, norm="forward")


def _fine(points: int) -> int:
    """Return the least multiple of `points` that resolves the waves."""
    return points * -(-FINE // points)
