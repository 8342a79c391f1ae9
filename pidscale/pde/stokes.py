"""Stokes' second problem: a fluid above a wall that oscillates in its own plane; the viscosity varies from sample to sample.

    u_t = nu u_yy   for 0 <= t <= 1, 0 <= y <= 1;   u = U e^(-k y) cos(k y - w t + phi),   k = sqrt(w / (2 nu))

    u    velocity along the wall, over time (rows) and distance from the wall (columns), both ends of both included
    nu   viscosity, drawn for each sample from 0.01 to 0.1; frequency w (2 to 8) and phase phi are drawn too, but hidden

The first row and both end columns are input and determine the rest, which is solution; no boundary is left to be a term. The
residual of the interval between two rows is, at inner points, the compact form of fourth order: with M = (1, 10, 1) / 12
along y, M (u[n + 1] - u[n]) / dt minus the mean over the interval of nu u_yy (second difference), which is taken from the
cubic through four rows. All quantities are dimensionless. U = 2, w and the range of k are those of ECI-sampling (Cheng et
al., 2025), whose residual takes one viscosity for all samples although theirs differ; this one takes that of each sample.

Terms: `interior`, of every interval, relative to that of a velocity that does not change.
Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional

from pidscale import seeds
from pidscale.ops.evolution import one_step_residual, solve_decay
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import sine_eigenvalues, sine_waves
from pidscale.ops.window import Window
from pidscale.pde.base import Channel
from pidscale.pde.parameters import check_span, draw_params, read_params
from pidscale.pde.strip import Strip


@dataclass(frozen=True)
class StokesParams:
    """Parameters of Stokes' second problem.

    Attributes:
        viscosity_low: Smallest nu of a sample, 1e-4 to 10.
        viscosity_high: Largest nu of a sample, 1e-4 to 10.
        frequency_low: Smallest w of a sample, 0.1 to 100.
        frequency_high: Largest w of a sample, 0.1 to 100.
        amplitude: U, 1e-3 to 1e3.
    """

    viscosity_low: float = 0.01
    viscosity_high: float = 0.1
    frequency_low: float = 2.0
    frequency_high: float = 8.0
    amplitude: float = 2.0


@dataclass(frozen=True)
class Stokes(Strip):
    """u_t = nu u_yy; rows are times, between an oscillating wall and the fluid far from it.

    Attributes:
        exact: True: one step of `correct` leaves nothing to correct.
        params: Parameters of the equation.
        name: Name of the equation.
        channels: The velocity.
    """

    exact: ClassVar[bool] = True
    params: StokesParams = StokesParams()
    name: str = "stokes"
    channels: tuple[Channel, ...] = (Channel("velocity", "1", "solution"),)

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Stokes:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        ends = {f"viscosity_{end}": (1e-4, 10.0) for end in ("low", "high")}
        ends |= {f"frequency_{end}": (0.1, 100.0) for end in ("low", "high")}
        params = read_params("stokes", StokesParams, given, ends | {"amplitude": (1e-3, 1e3)})
        for name in ("viscosity", "frequency"):
            check_span(asdict(params), name)
        return cls(params)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """Viscosity of each sample."""
        return {"viscosity": (self.params.viscosity_low, self.params.viscosity_high)}

    def grid(self, points: int) -> Grid:
        """Return the grid of `points` times by `points` distances."""
        return Grid((points, points), (1.0, 1.0), "strip", "dirichlet")

    def unknown(self, grid: Grid) -> Tensor:
        """Return True on all but the first row and both end columns, bool [T, Y]."""
        places = super().unknown(grid)
        places[:, 0] = False
        places[:, -1] = False
        return places

    def initial(self, seed: int, counter: int, points: int) -> np.ndarray:
        """Return the first row of a truth, float64 [Y]."""
        return self.sample(seed, counter, self.grid(points))[0][0, 0]

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth from the closed form, float64 [1, T, Y], and its viscosity."""
        p = self.params
        (viscosity,) = draw_params(self, seed, self.name, [counter])[0].tolist()
        swing, turn = seeds.uniform(seed, "stokes/wall", [counter], 2)[0].tolist()
        frequency = p.frequency_low + (p.frequency_high - p.frequency_low) * swing
        t, y = (np.linspace(0.0, length, n) for length, n in zip(grid.extent, grid.shape, strict=True))
        k = np.sqrt(frequency / (2 * viscosity))
        angle = k * y[None, :] - frequency * t[:, None] + 2 * np.pi * turn
        return (p.amplitude * np.exp(-k * y) * np.cos(angle))[None], {"viscosity": viscosity}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return the velocity that follows from its first row and end columns, [1, T, Y], and 0: every input is allowed."""
        from pidscale.pde.solve.lines import diffuse

        (viscosity,) = params
        times = np.linspace(0.0, grid.extent[0], grid.shape[0])
        return diffuse(np.asarray(fields[0], dtype=np.float64), viscosity, times, grid.extent[1])[None], 0

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the velocity that follows from its first row and end columns, exact. Two transposes."""
        u = fields_BCYX[:, 0]
        dt, dy = window.grid.spacing
        missing = functional.pad(-self.interval_residual(u, window, params_BP), (0, 0, 0, int(window.last)))
        right = window.to_columns(sine_waves(missing))[:, :-1]
        mu = sine_eigenvalues(window, u)
        waves = solve_decay(right, 1 - mu * dy**2 / 12, params_BP * mu, dt)
        change = sine_waves(window.to_rows(waves, window.grid.shape[1] - 2))
        return (u + functional.pad(change, (1, 1)))[:, None]

    def interval_residual(self, u_BTX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the residual of the intervals between rows at inner points, [B, T - 1, Y - 2]."""
        dt, dy = window.grid.spacing
        rows, seconds = window.line_up(u_BTX, 1, 2, _second_difference)
        rates = params_BP[:, :, None] * seconds / dy**2
        return one_step_residual(rows[..., 1:-1] + seconds / 12, rates, dt, window.first, window.last)


def _second_difference(u_BTY: Tensor) -> Tensor:
    centre = u_BTY[..., 1:-1]
    return (u_BTY[..., 2:] - centre) - (centre - u_BTY[..., :-2])
