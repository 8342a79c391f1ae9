"""The wave equation: a membrane released from rest.

    u_tt = c^2 lap u   on the periodic unit square,   u_t = 0 at t = 0

    u   displacement, frames from t = 0 to 1, 11 unless `frames` is given

Every wave oscillates independently, u_k(t) = cos(c |k| t) u_k(0). Three frames, and the first two, thus satisfy exactly

    (u_k[n + 1] - 2 cos(c |k| dt) u_k[n] + u_k[n - 1]) / dt^2 = 0,   2 (u_k[1] - cos(c |k| dt) u_k[0]) / dt^2 = 0

These are the residual, which has no truncation error. (Plain second differences of 11 frames would leave 0.9 of the scale.)
With the factor 2 both forms approximate u_tt - c^2 lap u. All quantities are dimensionless. The initial states are Gaussian
fields with covariance (-lap + 36)^-4 and root mean square 1.

Terms: `interior`, of every interval, relative to that of a membrane that stays in its initial shape. The operators are
periodic, so there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.spectral import field_of, wave_numbers, waves
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, PeriodicEvolution
from pidscale.pde.parameters import read_params
from pidscale.pde.random_fields import periodic_field


@dataclass(frozen=True)
class WaveParams:
    """Parameters of the wave equation and of its data.

    Attributes:
        speed: c, 0.001 to 10.
        duration: Time from the first frame to the last.
        frames: Number of frames.
        alpha: Exponent of the covariance of the initial state.
        tau: Inverse length of that covariance.
    """

    speed: float = 1.0
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 6.0


@dataclass(frozen=True)
class Wave(PeriodicEvolution):
    """u_tt = c^2 lap u, periodic, from rest.

    Attributes:
        splits: True: the residual asks the window for the transforms that it needs.
        exact: True: one step of `correct` leaves nothing to correct.
        params: Parameters of the equation.
    """

    splits: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    params: WaveParams = WaveParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Wave:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        p = read_params("wave", WaveParams, given, RANGES | FRAMES | {"speed": (1e-3, 10.0)})
        return cls("wave", ("displacement",), p.frames, p.duration, p)

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """Return a smooth displacement, float64 [1, Y, X]."""
        return periodic_field(seed, "wave/initial", counter, grid.shape, self.params.alpha, self.params.tau)[None]

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Return the frames, exact for every wave, float64 [F, 1, Y, X]."""
        from pidscale.pde.solve.periodic import standing_waves

        times = np.arange(self.frames) * self.interval
        return standing_waves(initial[0], self.params.speed, times, grid.extent)[:, None]

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the first frame with the frames that follow from it, exact for every wave. Two transposes."""
        ky, kx = wave_numbers(window, fields_BCYX)
        first = fields_BCYX[:, :1]
        count = torch.arange(1, self.frames, dtype=ky.dtype, device=ky.device)[:, None, None]
        swing = torch.cos(count * (self.params.speed * self.interval * (ky**2 + kx**2).sqrt()))
        return torch.cat([first, field_of(window, swing * waves(window, first))], dim=1)

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the residual of the first interval, then of three frames at a time, [B, F - 1, 1, Y, X]."""
        u = frames_BFSYX
        dt = self.interval
        ky, kx = wave_numbers(window, u)
        factor = 1 - torch.cos(self.params.speed * dt * (ky**2 + kx**2).sqrt())
        change = field_of(window, factor * waves(window, u[:, :-1]))  # u - cos(c |k| dt) u
        first = 2 * ((u[:, 1:2] - u[:, :1]) + change[:, :1])
        later = ((u[:, 2:] - u[:, 1:-1]) - (u[:, 1:-1] - u[:, :-2])) + 2 * change[:, 1:]
        return torch.cat([first, later], dim=1) / dt**2
