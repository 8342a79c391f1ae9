"""The wave equation: a membrane that is let go.

    u_tt = c^2 lap u   on the periodic unit square,   u_t = 0 at t = 0

    u   displacement, 11 frames from t = 0 to 1

Its waves turn each at its own rate, u_k(t) = cos(c |k| t) u_k(0), so three frames and the first step obey, exactly,

    (u_k[n + 1] - 2 cos(c |k| dt) u_k[n] + u_k[n - 1]) / dt^2 = 0,   2 (u_k[1] - cos(c |k| dt) u_k[0]) / dt^2 = 0

which is the residual: no truncation. (Plain second differences of 11 frames would leave 0.9 of the scale.) The factor 2 makes
both forms near u_tt - c^2 lap u. Units: all dimensionless. Initial states: Gaussian fields, covariance (-lap + 36)^-4, root
mean square 1.

Terms: `interior`, of every interval; scale: that of a membrane at rest in its initial shape. The state is periodic by its
operators, so there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.spectral import field_of, wave_numbers, waves
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, PeriodicEvolution
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import periodic_field


@dataclass(frozen=True)
class WaveParams:
    """speed: c, 0.001 to 10. duration: of all frames. frames: 4 or more. alpha, tau: the law of the initial state."""

    speed: float = 1.0
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 6.0


@dataclass(frozen=True)
class Wave(PeriodicEvolution):
    """u_tt = c^2 lap u, periodic, from rest."""

    splits: ClassVar[bool] = True
    params: WaveParams = WaveParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Wave:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("wave", asdict(WaveParams()), given)
        check_ranges(values, RANGES | FRAMES | {"speed": (1e-3, 10.0)})
        p = WaveParams(**values)
        return cls("wave", ("displacement",), p.frames, p.duration, p)

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """A smooth displacement, [1, Y, X]."""
        return periodic_field(seed, "wave/initial", counter, grid.shape, self.params.alpha, self.params.tau)[None]

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Every wave at its own rate, [F, 1, Y, X]."""
        from pidscale.pde.solve.periodic import standing_waves

        return standing_waves(initial[0], self.params.speed, np.arange(self.frames) * self.interval, grid.extent)[
            :, None
        ]

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """The first step, then three frames at a time, [B, F - 1, 1, Y, X]."""
        u, dt = frames_BFSYX, self.interval
        ky, kx = wave_numbers(window, u)
        turn = 1 - torch.cos(self.params.speed * dt * (ky**2 + kx**2).sqrt())
        turned = field_of(window, turn * waves(window, u[:, :-1]))  # u - cos(c |k| dt) u
        first = 2 * ((u[:, 1:2] - u[:, :1]) + turned[:, :1])
        later = ((u[:, 2:] - u[:, 1:-1]) - (u[:, 1:-1] - u[:, :-2])) + 2 * turned[:, 1:]
        return torch.cat([first, later], dim=1) / dt**2
