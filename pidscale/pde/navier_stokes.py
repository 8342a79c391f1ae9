"""The Navier-Stokes equations in two dimensions: the vorticity of a forced flow of low viscosity.

    w_t + u . grad w = nu lap w + f   on the periodic unit square,   lap psi = -w,   u = (psi_y, -psi_x)
    f = 0.1 (sin(2 pi (x + y)) + cos(2 pi (x + y)))

    w   vorticity, frames from t = 0 to 1, 11 unless `frames` is given

The residual of an interval is (w[n + 1] - w[n]) / dt minus the mean over the interval of f + nu lap w - u . grad w, which is
taken from the cubic through four frames: fourth order in time, so that 11 frames are enough. (The two frames at the ends of
the interval alone would leave an error as large as the change of the vorticity.) In space it is spectral, and the product is
exact because it is computed on 3/2 times as many points a side. All quantities are dimensionless. Force and viscosity are
those of Li et al. (Fourier Neural Operator, 2021). The initial states are smoother than theirs, with covariance
(-lap + 49)^-4 and root mean square 1, so that 32 points a side resolve them.

Terms: `interior`, of every interval, relative to that of a vorticity that does not change. The operators are periodic, so
there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.spectral import field_of, resample, signed_wave_numbers, wave_numbers, waves
from pidscale.ops.sweeps import Waves, stable_substeps
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, PeriodicEvolution
from pidscale.pde.flow import Flow
from pidscale.pde.parameters import read_params
from pidscale.pde.random_fields import periodic_field

FASTEST = 0.4  # speed for which sweeps are stable; that of an initial state is at most about this


@dataclass(frozen=True)
class NavierStokesParams:
    """Parameters of the flow and of its data.

    Attributes:
        viscosity: nu, 1e-5 to 1.
        force: Amplitude of f, 0 to 100.
        duration: Time from the first frame to the last.
        frames: Number of frames.
        alpha: Exponent of the covariance of the initial state.
        tau: Inverse length of that covariance.
    """

    viscosity: float = 1e-3
    force: float = 0.1
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 7.0


@dataclass(frozen=True)
class NavierStokes(Flow, PeriodicEvolution):
    """w_t + u . grad w = nu lap w + f, periodic.

    Attributes:
        splits: True: the residual asks the window for the transforms that it needs.
        params: Parameters of the equation.
    """

    splits: ClassVar[bool] = True
    params: NavierStokesParams = NavierStokesParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> NavierStokes:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        own = {"viscosity": (1e-5, 1.0), "force": (0.0, 100.0)}
        p = read_params("navier_stokes", NavierStokesParams, given, RANGES | FRAMES | own)
        return cls("navier_stokes", ("vorticity",), p.frames, p.duration, p)

    @property
    def largest(self) -> float:
        """10.0, ten times the root mean square of initial states."""
        return 10.0

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """Return a smooth vorticity, float64 [1, Y, X]."""
        p = self.params
        return periodic_field(seed, "navier_stokes/initial", counter, grid.shape, p.alpha, p.tau)[None]

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Return the frames by a pseudo-spectral method, float64 [F, 1, Y, X]."""
        from pidscale.pde.solve.periodic import vortices

        y, x = (np.arange(n) / n for n in grid.shape)
        phase = 2 * np.pi * (x[None, :] + y[:, None])
        force = self.params.force * (np.sin(phase) + np.cos(phase))
        times = np.arange(self.frames) * self.interval
        return vortices(initial[0], self.params.viscosity, force, times)[:, None]

    def waves(self, window: Window, like: Tensor) -> Waves:
        """Return Fourier waves with their diffusion."""
        ky, kx = wave_numbers(window, like)
        exponents = -self.params.viscosity * (ky**2 + kx**2)
        return Waves(exponents, lambda state: waves(window, state), lambda modes: field_of(window, modes))

    def substeps(self, grid: Grid) -> int:
        """Return the number of steps with which no wave grows at the speed FASTEST, or at one that the force reaches."""
        highest = math.pi * math.hypot(*(1 / h for h in grid.spacing))
        driven = abs(self.params.force) * self.duration / (2 * math.pi)
        return stable_substeps(max(FASTEST, driven), self.params.viscosity, highest, self.interval)

    def rate(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return f + nu lap w - u . grad w at every frame; the product is computed in space, on a finer grid."""
        w = frames_BFSYX
        grid = window.grid
        height = grid.shape[0]
        finer = window.over(replace(grid, shape=(3 * height // 2, 3 * grid.shape[1] // 2)))
        points = finer.grid.shape[0]
        columns = grid.shape[1] // 2 + 1
        ky, kx = wave_numbers(window, w)
        spectrum = waves(window, w)
        square = ky**2 + kx**2
        psi = spectrum / square.masked_fill(square == 0, math.inf)
        _, signed_kx = signed_wave_numbers(window, w)
        signed = (kx == signed_kx).to(w.dtype)  # all waves along x but the highest one, which has no sign
        # each as a field on the finer grid: u_x = psi_y, u_y = -psi_x, and the slopes of w
        parts = torch.stack([1j * ky * psi, -1j * kx * psi, 1j * kx * spectrum, 1j * ky * spectrum]) * signed
        u_x, u_y, w_x, w_y = field_of(finer, resample(parts, height, points, -2, real=False), columns)
        advected = resample(waves(finer, u_x * w_x + u_y * w_y, columns), points, height, -2, real=False) * signed
        return field_of(window, -self.params.viscosity * square * spectrum - advected) + self._force(window, w)

    def _force(self, window: Window, like: Tensor) -> Tensor:
        """Return f on the rows at hand, in the dtype and on the device of `like`."""
        y, x = (torch.arange(n, dtype=torch.float64) / n for n in window.grid.shape)
        phase = 2 * math.pi * (x[None, :] + y[window.rows, None])
        return (self.params.force * (phase.sin() + phase.cos())).to(like)
