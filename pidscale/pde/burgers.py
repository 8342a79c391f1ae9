"""Burgers' equation: waves that steepen and are held by a little viscosity.

    u_t + u u_x = nu u_xx   for 0 <= t <= 1, periodic in x on the unit interval

    u   velocity over time (rows) and place (columns), `points` of each; the first row is the initial state

The residual of the interval between two rows is (u[n + 1] - u[n]) / dt minus the mean over the interval of
nu u_xx - (u^2)_x / 2, by the cubic through four rows: fourth order in time; in space spectral, the square on a grid of 3/2
the points, where it is exact. The generator resolves the waves on 256 points or more and keeps every so many, so that what a
coarse grid misses is seen in the floor. Units: all dimensionless. Recipe: nu = 0.01 of Li et al. (Fourier Neural Operator,
2021); initial states smoother than theirs, covariance (-d2/dx2 + 49)^-3, root mean square 0.5.

Terms: `interior`, of every interval; scale: that of a velocity that stands still. The state is periodic by its operators, so
there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.caller import kept
from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import dual_square_periodic_line, line_wave_numbers, resample
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Equation
from pidscale.pde.evolution import RANGES, TYPICAL_POINTS, TYPICAL_SAMPLES, descend
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import periodic_line
from pidscale.pde.terms import Term

FINE = 256  # least points that the generator resolves waves on
LARGEST = 5.0  # a generated initial velocity is cut to it before it is solved: ten times the law


@dataclass(frozen=True)
class BurgersParams:
    """viscosity: nu, 1e-3 to 1. size: RMS of the initial state. duration: of all rows. alpha, tau: the initial law."""

    viscosity: float = 0.01
    size: float = 0.5
    duration: float = 1.0
    alpha: float = 3.0
    tau: float = 7.0


@dataclass(frozen=True)
class Burgers(Equation):
    """u_t + u u_x = nu u_xx, rows are times, periodic along each."""

    splits: ClassVar[bool] = True
    params: BurgersParams = BurgersParams()
    name: str = "burgers"
    channels: tuple[Channel, ...] = (Channel("velocity", "1", "solution"),)

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Burgers:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("burgers", asdict(BurgersParams()), given)
        check_ranges(values, RANGES | {"viscosity": (1e-3, 1.0), "size": (1e-3, 2.0)})
        return cls(BurgersParams(**values))

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    @property
    def residual_scale(self) -> float:
        """The residual of a velocity that stands still, RMS over a fixed set of initial states: of the parameters alone."""
        return _standing_scales(self)[0]

    def grid(self, points: int) -> Grid:
        """`points` times by `points` places."""
        return Grid((points, points), (self.params.duration, 1.0), "strip", "periodic")

    def initial(self, seed: int, counter: int, points: int) -> np.ndarray:
        """An initial velocity, float64 [X]."""
        p = self.params
        return p.size * periodic_line(seed, "burgers/initial", counter, points, p.alpha, p.tau)

    def _integrate(self, initial: np.ndarray, grid: Grid) -> np.ndarray:
        """Rows [T, X] from an initial state on a multiple of X points."""
        from pidscale.pde.solve.periodic import burgers

        times = np.linspace(0.0, grid.extent[0], grid.shape[0])
        return burgers(initial, self.params.viscosity, times)[:, :: len(initial) // grid.shape[1]]

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """One truth, float64 [1, T, X]."""
        return self._integrate(self.initial(seed, counter, _fine(grid.shape[1])), grid)[None], {}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """The first row with the rows that follow, [1, T, X]; points beyond LARGEST are cut to it and counted."""
        state = np.asarray(fields[0, 0], dtype=np.float64)
        points, fine = len(state), _fine(len(state))
        waves = np.fft.rfft(np.clip(state, -LARGEST, LARGEST), norm="forward")
        if points % 2 == 0:
            waves[-1] = 0.0  # the highest wave has no sign
        rows = self._integrate(np.fft.irfft(np.pad(waves, (0, fine // 2 + 1 - len(waves))), fine, norm="forward"), grid)
        rows = np.concatenate([state[None], rows[1:]])
        return rows[None], int((np.abs(state) > LARGEST).sum())

    def interval_residual(self, u_BTX: Tensor, window: Window) -> Tensor:
        """The residual between rows, [B, T - 1, X]; that after a row belongs to its holder."""
        rows, rates = window.line_up(u_BTX, 1, 2, lambda rows: self._rate(rows, window.grid))
        return one_step_residual(rows, rates, window.grid.spacing[0], window.first, window.last)

    def _rate(self, u_BTX: Tensor, grid: Grid) -> Tensor:
        """nu u_xx - (u^2)_x / 2 of each row."""
        points = grid.shape[1]
        fine = 3 * points // 2
        k = line_wave_numbers(points, grid.extent[1], u_BTX)
        waves = torch.fft.rfft(u_BTX, norm="forward")
        wide = torch.fft.irfft(resample(waves, points, fine, -1, real=True), n=fine, norm="forward")
        squares = resample(torch.fft.rfft(wide.square(), norm="forward"), fine, points, -1, real=True)
        return torch.fft.irfft(-self.params.viscosity * k**2 * waves - 0.5j * k * squares, n=points, norm="forward")

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """The residual between rows [B, T - 1, X]."""
        times, points = window.grid.shape
        values = self.interval_residual(fields_BCYX[:, 0], window)
        return {"interior": Term(values, self.residual_scale, (times - 1) * points, times - 1)}

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Squared dual norm [B] along x, mean over intervals, relative to that of a velocity that stands still."""
        return _dual_square(term.values, window.grid) / _standing_scales(self)[1] ** 2

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """The initial state at all times."""
        first = window.top_row(fields_BCYX) if window else fields_BCYX[:, :, :1]
        return first.expand_as(fields_BCYX).clone()

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Steps of steepest descent of the squared residual over the rows after the first."""
        free = torch.ones_like(fields_BCYX)
        free[:, :, 0] = 0
        window = Window(grid)
        return descend(lambda x: self.interval_residual(x[:, 0], window), fields_BCYX, free, sweeps)

    def unknown(self, grid: Grid) -> Tensor:
        """All rows but the first, which is the initial state."""
        places = super().unknown(grid)
        places[0] = False
        return places


def _fine(points: int) -> int:
    """The least multiple of `points` that resolves the waves."""
    return points * -(-FINE // points)


def _dual_square(values_BTX: Tensor, grid: Grid) -> Tensor:
    lines = dual_square_periodic_line(values_BTX.flatten(0, 1), grid.spacing[1])
    return lines.reshape(len(values_BTX), -1).sum(dim=1) / (grid.shape[0] - 1)


@kept(64)
def _standing_scales(pde: Burgers) -> tuple[float, float]:
    grid = pde.grid(2 * TYPICAL_POINTS)
    points = grid.shape[1]
    states = np.stack([pde.initial(0, 2**50 + i, points) for i in range(TYPICAL_SAMPLES)])
    values = pde.interval_residual(torch.from_numpy(states)[:, None].repeat(1, points, 1), Window(grid))
    return float(values.square().mean().sqrt()), float(_dual_square(values, grid).mean().sqrt())
