"""Navier-Stokes in two dimensions: the vorticity of a forced, nearly inviscid flow.

    w_t + u . grad w = nu lap w + f   on the periodic unit square,   lap psi = -w,   u = (psi_y, -psi_x)
    f = 0.1 (sin(2 pi (x + y)) + cos(2 pi (x + y)))

    w   vorticity, 11 frames from t = 0 to 1

The residual of an interval is (w[n + 1] - w[n]) / dt minus the mean over the interval of f + nu lap w - u . grad w, by the
cubic through four frames: fourth order in time, so that 11 frames are enough; in space spectral, the product on a grid of 3/2
the points, where it is exact. The two end frames alone could not carry this equation: their secant misses by as much as the
vorticity changes. Units: all dimensionless. Recipe: force and viscosity of Li et al. (Fourier Neural Operator, 2021), initial
states smoother than theirs, covariance (-lap + 49)^-4, so that 32 points a side resolve them; root mean square 1.

Terms: `interior`, of every interval; scale: that of a vorticity that stands still. The state is periodic by its operators, so
there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import directed, field_of, resample, wave_numbers, waves
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, PeriodicEvolution
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import periodic_field


@dataclass(frozen=True)
class NavierStokesParams:
    """viscosity: nu, 1e-5 to 1. force: its amplitude. duration, frames: of the data. alpha, tau: the initial law."""

    viscosity: float = 1e-3
    force: float = 0.1
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 7.0


@dataclass(frozen=True)
class NavierStokes(PeriodicEvolution):
    """w_t + u . grad w = nu lap w + f, periodic."""

    splits: ClassVar[bool] = True
    params: NavierStokesParams = NavierStokesParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> NavierStokes:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("navier_stokes", asdict(NavierStokesParams()), given)
        check_ranges(values, RANGES | FRAMES | {"viscosity": (1e-5, 1.0), "force": (0.0, 100.0)})
        p = NavierStokesParams(**values)
        return cls("navier_stokes", ("vorticity",), p.frames, p.duration, p)

    @property
    def largest(self) -> float:
        """10.0: ten times the law of the initial states."""
        return 10.0

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """A smooth vorticity, [1, Y, X]."""
        p = self.params
        return periodic_field(seed, "navier_stokes/initial", counter, grid.shape, p.alpha, p.tau)[None]

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Pseudo-spectral frames, [F, 1, Y, X]."""
        from pidscale.pde.solve.periodic import vortices

        y, x = (np.arange(n) / n for n in grid.shape)
        phase = 2 * np.pi * (x[None, :] + y[:, None])
        force = self.params.force * (np.sin(phase) + np.cos(phase))
        times = np.arange(self.frames) * self.interval
        return vortices(initial[0], self.params.viscosity, force, times)[:, None]

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """The residual of every interval, [B, F - 1, 1, Y, X]."""
        return one_step_residual(frames_BFSYX, self._rate(frames_BFSYX, window), self.interval)

    def _rate(self, w: Tensor, window: Window) -> Tensor:
        """f + nu lap w - u . grad w at every frame. The product is taken in space: waves go there and back for it."""
        grid, height = window.grid, window.grid.shape[0]
        finer = window.over(replace(grid, shape=(3 * height // 2, 3 * grid.shape[1] // 2)))
        points, columns = finer.grid.shape[0], grid.shape[1] // 2 + 1
        (ky, kx), spectrum = wave_numbers(window, w), waves(window, w)
        square = ky**2 + kx**2
        psi = spectrum / square.masked_fill(square == 0, math.inf)
        _, towards = directed(window, w)
        known = (kx == towards).to(w.dtype)  # all waves along x but the highest one, which has no sign
        # each as a field on the finer grid: u_x = psi_y, u_y = -psi_x, and the slopes of w
        parts = torch.stack([1j * ky * psi, -1j * kx * psi, 1j * kx * spectrum, 1j * ky * spectrum]) * known
        u_x, u_y, w_x, w_y = field_of(finer, resample(parts, height, points, -2, real=False), columns)
        carried = resample(waves(finer, u_x * w_x + u_y * w_y, columns), points, height, -2, real=False) * known
        return field_of(window, -self.params.viscosity * square * spectrum - carried) + self._force(window, w)

    def _force(self, window: Window, like: Tensor) -> Tensor:
        y, x = (torch.arange(n, dtype=torch.float64) / n for n in window.grid.shape)
        phase = 2 * math.pi * (x[None, :] + y[window.rows, None])
        return (self.params.force * (phase.sin() + phase.cos())).to(like)
