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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import resample, wave_numbers
from pidscale.pde.base import check_params, check_ranges
from pidscale.pde.evolution import FRAMES, RANGES, PeriodicEvolution
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

    def interval_residual(self, frames_BFSYX: Tensor, grid: Grid, params_BP: Tensor) -> Tensor:
        """The residual of every interval, [B, F - 1, 1, Y, X]."""
        return one_step_residual(frames_BFSYX, self._rate(frames_BFSYX, grid), self.interval)

    def _rate(self, w: Tensor, grid: Grid) -> Tensor:
        """f + nu lap w - u . grad w at every frame."""
        shape = grid.shape
        fine = (3 * shape[0] // 2, 3 * shape[1] // 2)
        ky, kx = wave_numbers(shape, grid.extent, w)
        square = ky**2 + kx**2
        waves = torch.fft.rfft2(w, norm="forward")
        psi = waves / square.masked_fill(square == 0, math.inf)
        # each as a field on the finer grid: u_x = psi_y, u_y = -psi_x, and the slopes of w
        parts = torch.stack([1j * ky * psi, -1j * kx * psi, 1j * kx * waves, 1j * ky * waves])
        u_x, u_y, w_x, w_y = torch.fft.irfft2(resample(parts, shape, fine), s=fine, norm="forward")
        carried = resample(torch.fft.rfft2(u_x * w_x + u_y * w_y, norm="forward"), fine, shape)
        slow = torch.fft.irfft2(-self.params.viscosity * square * waves - carried, s=shape, norm="forward")
        return slow + self._force(grid, w)

    def _force(self, grid: Grid, like: Tensor) -> Tensor:
        y, x = (torch.arange(n, dtype=torch.float64) / n for n in grid.shape)
        phase = 2 * math.pi * (x[None, :] + y[:, None])
        return (self.params.force * (phase.sin() + phase.cos())).to(like)
