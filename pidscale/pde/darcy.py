"""Darcy flow: pressure in a porous medium, steady.

    -div(a grad u) = 1   on the unit square,   u = 0 on its edge

    a   permeability: `two_phase`, 12 where a Gaussian field is >= 0 and 3 elsewhere, or `log_normal`, exp of that field
    u   pressure

Both fields live on the same nodes (both ends included). The residual is the flux form with arithmetic-mean faces, second
order; with a two-phase coefficient only the flux form on the solver's own nodes tells truth from nothing. Units: all
dimensionless. Recipe: covariance (-lap + 9)^-2 and phases of Li et al. (Fourier Neural Operator, 2021), but solved on
the grid that is stored, not on a shifted one reached by splines, which would leave a residual as large as the source.

Terms: `interior` div(a grad u) + 1, scale 1 (RMS of the source); `boundary` u on the edge, scale RMS of u for the
typical a.
Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import dual_square_dirichlet, dual_square_of_one
from pidscale.ops.stencil import flux_divergence
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Equation
from pidscale.pde.dirichlet import nodal_terms
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import LAW, cosine_field
from pidscale.pde.terms import Term

UNIT_PRESSURE = 0.041  # RMS of u for a = f = 1: over the typical a, the scale of the boundary term
CONTRAST = 1e4  # largest ratio of the phases
LOWEST = 0.1  # a generated coefficient is raised to this share of its lowest phase before it is solved


@dataclass(frozen=True)
class DarcyParams:
    """variant: two_phase or log_normal. low, high: phases of a. alpha, tau: the Gaussian field. source: f."""

    variant: str = "two_phase"
    low: float = 3.0
    high: float = 12.0
    alpha: float = 2.0
    tau: float = 3.0
    source: float = 1.0


@dataclass(frozen=True)
class Darcy(Equation):
    """-div(a grad u) = f on nodes, u = 0 on the edge."""

    splits: ClassVar[bool] = True
    params: DarcyParams = DarcyParams()
    name: str = "darcy"
    channels: tuple[Channel, ...] = (
        Channel("permeability", "1", "input", positive=True),
        Channel("pressure", "1", "solution"),
    )

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Darcy:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("darcy", asdict(DarcyParams()), given)
        if values["variant"] not in ("two_phase", "log_normal"):
            raise UserError(f"pde.params.variant={values['variant']!r}: expected two_phase or log_normal")
        if not 0 < values["low"] <= values["high"] < math.inf:
            raise UserError(f"pde.params.low={values['low']}, high={values['high']}: expected 0 < low <= high")
        if values["high"] > CONTRAST * values["low"]:
            raise UserError(
                f"pde.params.low={values['low']}, high={values['high']}: expected a ratio of at most {CONTRAST:g}, which "
                "float32 can hold"
            )
        check_ranges(values, LAW)
        if not 0 < abs(values["source"]) < math.inf:
            raise UserError(f"pde.params.source={values['source']}: residuals are measured against it, so not zero")
        return cls(DarcyParams(**values))

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    @property
    def constraints(self) -> tuple[str, ...]:
        """The solution is 0 on the edge."""
        return ("zero_edge",)

    @property
    def residual_scale(self) -> float:
        """The size of the source."""
        return abs(self.params.source)

    @property
    def pressure_scale(self) -> float:
        """The typical RMS of u, from the parameters alone: 0.041 |f| over the geometric mean of a."""
        typical = (self.params.low * self.params.high) ** 0.5 if self.params.variant == "two_phase" else 1.0
        return UNIT_PRESSURE * abs(self.params.source) / typical

    @property
    def lowest(self) -> float:
        """The least permeability that is solved or smoothed: a generated one below it is raised to it."""
        return LOWEST * self.params.low if self.params.variant == "two_phase" else 1e-3

    def grid(self, points: int) -> Grid:
        """Nodes of the unit square, `points` a side."""
        return Grid((points, points), (1.0, 1.0), "node", "dirichlet")

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """One truth (a, u), float64 [2, Y, X]; the Gaussian field is the same at every resolution."""
        p = self.params
        field = cosine_field(seed, "darcy/permeability", counter, grid.shape, p.alpha, p.tau)
        a = np.where(field >= 0, p.high, p.low) if p.variant == "two_phase" else np.exp(field)
        return self.solve(a[None], grid)[0], {}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """The permeability with its pressure, [2, Y, X]; points below the legal floor are raised to it and counted."""
        from pidscale.pde.solve.elliptic import solve_diffusion

        a = np.asarray(fields[0], dtype=np.float64)
        raised = int((a < self.lowest).sum())
        pressure = solve_diffusion(np.maximum(a, self.lowest), np.full(grid.shape, self.params.source), grid.extent)
        return np.stack([a, pressure]), raised

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """div(a grad u) + f at interior nodes [B, Y - 2, X - 2], and u on the edge [B, 2 (Y + X) - 4]."""

        def form(fields: Tensor) -> Tensor:
            return flux_divergence(fields[:, 0], fields[:, 1], window.grid.spacing) + self.params.source

        return nodal_terms(window, fields_BCYX, form, self.residual_scale, self.pressure_scale)

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Squared dual norm [B] of the interior residual relative to that of the source."""
        return dual_square_dirichlet(term.values, window) / (dual_square_of_one(window.grid) * term.scale**2)

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """The same permeability with zero pressure."""
        return torch.stack([fields_BCYX[:, 0], torch.zeros_like(fields_BCYX[:, 1])], dim=1)

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Damped Jacobi sweeps (weight 0.8) on the pressure of each sample, its edge untouched."""
        fields = fields_BCYX.clone()
        hy, hx = grid.spacing
        a = fields[:, 0].clamp_min(self.lowest)
        faces_y, faces_x = (a[:, 1:] + a[:, :-1])[:, :, 1:-1] / 2, (a[:, :, 1:] + a[:, :, :-1])[:, 1:-1] / 2
        diagonal = (faces_y[:, 1:] + faces_y[:, :-1]) / hy**2 + (faces_x[:, :, 1:] + faces_x[:, :, :-1]) / hx**2
        for _ in range(sweeps):
            step = flux_divergence(a, fields[:, 1], grid.spacing) + self.params.source
            fields[:, 1, 1:-1, 1:-1] += 0.8 * step / diagonal
        return fields

    def phase_error(self, fields_BCYX: Tensor) -> Tensor | None:
        """Mean distance [B] of a to its nearest phase, in units of a; None for the log-normal variant."""
        if self.params.variant != "two_phase":
            return None
        a = fields_BCYX[:, 0]
        return torch.minimum((a - self.params.low).abs(), (a - self.params.high).abs()).flatten(1).mean(dim=1)
