"""Darcy flow: the steady pressure in a porous medium.

    -div(a grad u) = f   on the unit square,   u = 0 on its edge

    a   permeability: `two_phase`, 12 where a Gaussian field is >= 0 and 3 elsewhere, or `log_normal`, exp of that field
    f   a constant source, 1 unless `source` is given
    u   pressure

Both fields are given on the same nodes (both ends included). The residual is the flux form with arithmetic-mean faces, second
order; with a two-phase coefficient only the flux form on the solver's own nodes separates truths from null solutions. All
quantities are dimensionless. Covariance (-lap + 9)^-2 and phases are those of Li et al. (Fourier Neural Operator, 2021), but
the equation is solved on the grid that is stored; values interpolated by splines from a shifted grid would leave a residual
as large as the source.

Terms: `interior` div(a grad u) + f, relative to |f|; `boundary` u on the edge, relative to the root mean square of u for a
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
from pidscale.ops.krylov import conjugate_gradients
from pidscale.ops.spectral import dual_square_dirichlet, dual_square_of_one, solve_dirichlet
from pidscale.ops.stencil import flux_divergence
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Equation
from pidscale.pde.dirichlet import inside_edge, nodal_terms, within_edge
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import COVARIANCE, cosine_field
from pidscale.pde.terms import Term

UNIT_PRESSURE = 0.041  # root mean square of u for a = f = 1; divided by a typical a, the scale of the boundary term
CONTRAST = 1e4  # largest ratio of the phases
LOWEST = 0.1  # a generated permeability is raised to this share of its lower phase before it is solved


@dataclass(frozen=True)
class DarcyParams:
    """Parameters of Darcy flow and of its permeability.

    Attributes:
        variant: `two_phase` or `log_normal`.
        low: Lower phase of a, above 0.
        high: Upper phase of a, at most 10,000 times `low`.
        alpha: Exponent of the covariance of the Gaussian field.
        tau: Inverse length of that covariance.
        source: f, not zero.
    """

    variant: str = "two_phase"
    low: float = 3.0
    high: float = 12.0
    alpha: float = 2.0
    tau: float = 3.0
    source: float = 1.0


@dataclass(frozen=True)
class Darcy(Equation):
    """-div(a grad u) = f on nodes, u = 0 on the edge.

    Attributes:
        splits: True: the residual asks the window for the rows that it lacks.
        params: Parameters of the equation.
        name: Name of the equation.
        channels: Permeability and pressure.
    """

    splits: ClassVar[bool] = True
    params: DarcyParams = DarcyParams()
    name: str = "darcy"
    channels: tuple[Channel, ...] = (
        Channel("permeability", "1", "input", positive=True),
        Channel("pressure", "1", "solution"),
    )

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Darcy:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        values = check_params("darcy", asdict(DarcyParams()), given)
        if values["variant"] not in ("two_phase", "log_normal"):
            raise UserError(f"pde.params.variant={values['variant']!r}: expected two_phase or log_normal")
        if not 0 < values["low"] <= values["high"] < math.inf:
            raise UserError(f"pde.params.low={values['low']}, high={values['high']}: expected 0 < low <= high")
        if values["high"] > CONTRAST * values["low"]:
            raise UserError(
                f"pde.params.low={values['low']}, high={values['high']}: expected a ratio of at most {CONTRAST:g}, which "
                "float32 resolves"
            )
        check_ranges(values, COVARIANCE)
        if not 0 < abs(values["source"]) < math.inf:
            raise UserError(f"pde.params.source={values['source']}: expected a finite value other than 0")
        return cls(DarcyParams(**values))

    @property
    def constraints(self) -> tuple[str, ...]:
        """`zero_edge`: the solution is 0 on the edge; `two_phase`, of that variant: a has no value between the phases."""
        return ("zero_edge",) if self.phases is None else ("zero_edge", "two_phase")

    @property
    def phases(self) -> tuple[float, float] | None:
        """The two values of a; None for the log-normal variant."""
        return (self.params.low, self.params.high) if self.params.variant == "two_phase" else None

    @property
    def residual_scale(self) -> float:
        """Size of the source."""
        return abs(self.params.source)

    @property
    def pressure_scale(self) -> float:
        """Typical root mean square of u, from the parameters alone: 0.041 |f| over the geometric mean of a."""
        typical = (self.params.low * self.params.high) ** 0.5 if self.params.variant == "two_phase" else 1.0
        return UNIT_PRESSURE * abs(self.params.source) / typical

    @property
    def lowest(self) -> float:
        """Smallest permeability that is solved or smoothed; generated values below it are raised to it."""
        return LOWEST * self.params.low if self.params.variant == "two_phase" else 1e-3

    def grid(self, points: int) -> Grid:
        """Return the nodes of the unit square, `points` a side."""
        return Grid((points, points), (1.0, 1.0), "node", "dirichlet")

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth (a, u), float64 [2, Y, X]; the Gaussian field is the same at every resolution."""
        p = self.params
        field = cosine_field(seed, "darcy/permeability", counter, grid.shape, p.alpha, p.tau)
        a = np.where(field >= 0, p.high, p.low) if p.variant == "two_phase" else np.exp(field)
        return self.solve(a[None], grid)[0], {}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return the permeability with its pressure, [2, Y, X], and at how many points it was raised to `lowest`."""
        from pidscale.pde.solve.elliptic import solve_diffusion

        a = np.asarray(fields[0], dtype=np.float64)
        raised = int((a < self.lowest).sum())
        pressure = solve_diffusion(np.maximum(a, self.lowest), np.full(grid.shape, self.params.source), grid.extent)
        return np.stack([a, pressure]), raised

    def refused(self, fields_BCYX: Tensor) -> Tensor:
        """Return at how many points of each sample the permeability is below `lowest`, [B]."""
        return (fields_BCYX[:, 0] < self.lowest).flatten(1).sum(dim=1)

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """Return div(a grad u) + f at interior nodes [B, Y - 2, X - 2], and u on the edge [B, 2 (Y + X) - 4]."""

        def form(fields: Tensor) -> Tensor:
            return flux_divergence(fields[:, 0], fields[:, 1], window.grid.spacing) + self.params.source

        return nodal_terms(window, fields_BCYX, form, self.residual_scale, self.pressure_scale)

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the fields after steps of conjugate gradients on the pressure, preconditioned by the inverse of -lap.

        In the energy norm, k steps leave at most 2 q^k of the error, q = (sqrt(c) - 1) / (sqrt(c) + 1) with the contrast c of
        a: 1/3 for the default phases. A step takes two messages to each neighbour, two transposes and two sums.
        """
        a = fields_BCYX[:, 0].clamp_min(self.lowest)

        def flux(u: Tensor) -> Tensor:
            pair = torch.stack([a, u], dim=1)
            return window.stencil(pair, 1, lambda x: flux_divergence(x[:, 0], x[:, 1], window.grid.spacing))

        pressure = conjugate_gradients(
            residual=lambda u: within_edge(flux(u) + self.params.source, window),
            operator=lambda u: within_edge(-flux(u), window),
            precondition=lambda r: within_edge(-solve_dirichlet(inside_edge(r, window), window), window),
            guess=within_edge(inside_edge(fields_BCYX[:, 1], window), window),
            steps=steps,
            total=window.total,
        )
        return torch.stack([fields_BCYX[:, 0], pressure], dim=1)

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Return the squared dual norm [B] of the interior residual relative to that of the source."""
        return dual_square_dirichlet(term.values, window) / (dual_square_of_one(window.grid) * term.scale**2)

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Return the fields after damped Jacobi sweeps (weight 0.8) on the pressure; its edge does not change."""
        fields = fields_BCYX.clone()
        hy, hx = grid.spacing
        a = fields[:, 0].clamp_min(self.lowest)
        faces_y = (a[:, 1:] + a[:, :-1])[:, :, 1:-1] / 2
        faces_x = (a[:, :, 1:] + a[:, :, :-1])[:, 1:-1] / 2
        diagonal = (faces_y[:, 1:] + faces_y[:, :-1]) / hy**2 + (faces_x[:, :, 1:] + faces_x[:, :, :-1]) / hx**2
        for _ in range(sweeps):
            step = flux_divergence(a, fields[:, 1], grid.spacing) + self.params.source
            fields[:, 1, 1:-1, 1:-1] += 0.8 * step / diagonal
        return fields

    def phase_error(self, fields_BCYX: Tensor) -> Tensor | None:
        """Return the mean distance [B] of a to its nearest phase, in units of a; None for the log-normal variant."""
        if self.phases is None:
            return None
        a = fields_BCYX[:, 0]
        low, high = self.phases
        return torch.minimum((a - low).abs(), (a - high).abs()).flatten(1).mean(dim=1)
