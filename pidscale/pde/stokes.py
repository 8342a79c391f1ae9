"""Stokes' second problem: a fluid above a wall that swings in its own plane, with a viscosity of each sample's own.

    u_t = nu u_yy   for 0 <= t <= 1, 0 <= y <= 1;   u = U e^(-k y) cos(k y - w t + phi),   k = sqrt(w / (2 nu))

    u    velocity along the wall, over time (rows) and distance from the wall (columns), both ends of both included
    nu   viscosity, drawn for each sample from 0.01 to 0.1; frequency w (2 to 8) and phase phi are drawn too, and hidden

The first row and both end columns are input, the rest is solution: so the equation alone decides it, and no boundary is
left over to have a term. The residual of the interval between two rows is, at inner points, the compact form of fourth order:
with M = (1, 10, 1) / 12 along y, M (u[n + 1] - u[n]) / dt minus the mean over the interval of nu u_yy (second difference), by
the cubic through four rows. Units: all dimensionless. Recipe: U = 2, w and the range of k of ECI-sampling (Cheng et al.,
2025), whose residual takes one viscosity for all samples although theirs differ; ours is told each one.

Terms: `interior`, of every interval; scale: that of a velocity that stands still. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import kept
from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import dual_square_dirichlet_line
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Equation
from pidscale.pde.evolution import TYPICAL_POINTS, TYPICAL_SAMPLES, descend
from pidscale.pde.parameters import check_params, check_ranges, check_span, draw_params, given_params
from pidscale.pde.terms import Term


@dataclass(frozen=True)
class StokesParams:
    """viscosity_low, viscosity_high: nu of a sample, 1e-4 to 10. frequency_low, frequency_high: w, to 100. amplitude: U."""

    viscosity_low: float = 0.01
    viscosity_high: float = 0.1
    frequency_low: float = 2.0
    frequency_high: float = 8.0
    amplitude: float = 2.0


@dataclass(frozen=True)
class Stokes(Equation):
    """u_t = nu u_yy, rows are times, between a swinging wall and the fluid far from it."""

    splits: ClassVar[bool] = True
    params: StokesParams = StokesParams()
    name: str = "stokes"
    channels: tuple[Channel, ...] = (Channel("velocity", "1", "solution"),)

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Stokes:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("stokes", asdict(StokesParams()), given)
        ends = {f"viscosity_{end}": (1e-4, 10.0) for end in ("low", "high")}
        ends |= {f"frequency_{end}": (0.1, 100.0) for end in ("low", "high")}
        check_ranges(values, ends | {"amplitude": (1e-3, 1e3)})
        check_span(values, "viscosity")
        check_span(values, "frequency")
        return cls(StokesParams(**values))

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """The viscosity of each sample."""
        return {"viscosity": (self.params.viscosity_low, self.params.viscosity_high)}

    @property
    def residual_scale(self) -> float:
        """The residual of a velocity that stands still, RMS over a fixed set of samples: of the parameters alone."""
        return _standing_scales(self)[0]

    def grid(self, points: int) -> Grid:
        """`points` times by `points` distances."""
        return Grid((points, points), (1.0, 1.0), "strip", "dirichlet")

    def unknown(self, grid: Grid) -> Tensor:
        """All but the first row and both end columns."""
        places = super().unknown(grid)
        places[0] = places[:, 0] = places[:, -1] = False
        return places

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """One truth, float64 [1, T, Y], from the closed form, and its viscosity."""
        p, (viscosity,) = self.params, draw_params(self, seed, self.name, [counter])[0].tolist()
        swing, turn = seeds.uniform(seed, "stokes/wall", [counter], 2)[0].tolist()
        frequency = p.frequency_low + (p.frequency_high - p.frequency_low) * swing
        t, y = (np.linspace(0.0, length, n) for length, n in zip(grid.extent, grid.shape, strict=True))
        k = np.sqrt(frequency / (2 * viscosity))
        angle = k * y[None, :] - frequency * t[:, None] + 2 * np.pi * turn
        return (p.amplitude * np.exp(-k * y) * np.cos(angle))[None], {"viscosity": viscosity}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """The velocity that follows from its first row and end columns, [1, T, Y]; every input is legal."""
        from pidscale.pde.solve.lines import diffuse

        (viscosity,) = params
        times = np.linspace(0.0, grid.extent[0], grid.shape[0])
        return diffuse(np.asarray(fields[0], dtype=np.float64), viscosity, times, grid.extent[1])[None], 0

    def interval_residual(self, u_BTY: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """The residual between rows at inner points, [B, T - 1, Y - 2]; that after a row belongs to its holder."""
        dt, dy = window.grid.spacing
        rows, seconds = window.line_up(u_BTY, 1, 2, _second_difference)
        rates = params_BP[:, :, None] * seconds / dy**2
        return one_step_residual(rows[..., 1:-1] + seconds / 12, rates, dt, window.first, window.last)

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """The residual between rows [B, T - 1, Y - 2]."""
        params = given_params(self, fields_BCYX, params_BP)
        values, (times, points) = self.interval_residual(fields_BCYX[:, 0], window, params), window.grid.shape
        return {"interior": Term(values, self.residual_scale, (times - 1) * (points - 2), times - 1)}

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Squared dual norm [B] along y, mean over intervals, relative to that of a velocity that stands still."""
        return _dual_square(term.values, window.grid) / _standing_scales(self)[1] ** 2

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """The initial state at all times, at the ends of the line too: with those of the truth it would have jumps there."""
        first = window.top_row(fields_BCYX) if window else fields_BCYX[:, :, :1]
        return first.expand_as(fields_BCYX).clone()

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Steps of steepest descent of the squared residual over what is solution."""
        params = given_params(self, fields_BCYX, params_BP)
        free = self.unknown(grid).to(fields_BCYX).expand_as(fields_BCYX)
        window = Window(grid)
        return descend(lambda x: self.interval_residual(x[:, 0], window, params), fields_BCYX, free, sweeps)


def _second_difference(u_BTY: Tensor) -> Tensor:
    centre = u_BTY[..., 1:-1]
    return (u_BTY[..., 2:] - centre) - (centre - u_BTY[..., :-2])


def _dual_square(values_BTY: Tensor, grid: Grid) -> Tensor:
    lines = dual_square_dirichlet_line(values_BTY.flatten(0, 1), grid.spacing[1])
    return lines.reshape(len(values_BTY), -1).sum(dim=1) / (grid.shape[0] - 1)


@kept(64)
def _standing_scales(pde: Stokes) -> tuple[float, float]:
    grid, counters = pde.grid(2 * TYPICAL_POINTS), range(2**50, 2**50 + TYPICAL_SAMPLES)
    states = torch.from_numpy(np.stack([pde.sample(0, counter, grid)[0] for counter in counters]))
    values = pde.interval_residual(pde.trivial(states)[:, 0], Window(grid), draw_params(pde, 0, pde.name, counters))
    return float(values.square().mean().sqrt()), float(_dual_square(values, grid).mean().sqrt())
