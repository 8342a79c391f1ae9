"""Base class of Poisson and Helmholtz: lap u + c u = f on nodes of the unit square, u = 0 on its edge; terms for Darcy too.

The source is a Gaussian field of root mean square 1, so the residual's scale is 1. Knows no files, no models and no ranks.
Shapes: fields_BCYX, channel 0 the source, channel 1 the solution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pidscale.caller import kept
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import dual_square_dirichlet, solve_dirichlet
from pidscale.ops.stencil import laplacian
from pidscale.ops.window import Form, Window
from pidscale.pde.base import Channel, Equation
from pidscale.pde.random_fields import cosine_field, cosine_rms
from pidscale.pde.terms import Term

TYPICAL_POINTS = 33  # points a side of the grid that the typical size of u is measured on
TYPICAL_SAMPLES = 64  # samples that it is measured on


@kept(16)
def _typical_sources(alpha: float, tau: float) -> np.ndarray:
    """Return a fixed set of sources [N, Y, X] with this covariance."""
    shape = (TYPICAL_POINTS, TYPICAL_POINTS)
    drawn = [cosine_field(0, "dirichlet/typical", i, shape, alpha, tau) for i in range(TYPICAL_SAMPLES)]
    return np.stack(drawn) / cosine_rms(alpha, tau)


@kept(64)
def typical_solution(shift: float, alpha: float, tau: float) -> float:
    """Return the root mean square of u over a fixed set of sources: a function of the parameters alone."""
    from pidscale.pde.solve.sine import solve_shifted_poisson

    solutions = [solve_shifted_poisson(source, shift) for source in _typical_sources(alpha, tau)]
    return math.sqrt(float(np.mean(np.square(solutions))))


@kept(64)
def typical_dual_square(alpha: float, tau: float) -> float:
    """Return the squared dual norm of the source, mean over the same set."""
    sources = torch.from_numpy(_typical_sources(alpha, tau))[:, 1:-1, 1:-1]
    return float(dual_square_dirichlet(sources, Window(Grid((TYPICAL_POINTS, TYPICAL_POINTS)))).mean())


def nodal_terms(window: Window, fields_BCyX: Tensor, form: Form, scale: float, edge_scale: float) -> dict[str, Term]:
    """Return the terms of a residual on nodes with a solution that is 0 on the edge.

    Args:
        window: The rows at hand and the way to ask for the others.
        fields_BCyX: Joint fields, the rows at hand; channel 1 is the solution.
        form: Interior residual [B, Y - 2, X - 2] of fields with one border point on every side.
        scale: Scale of the interior term.
        edge_scale: Scale of the boundary term.

    Returns:
        `interior`, the form at interior nodes, and `boundary`, the solution on the edge.
    """
    height, width = window.grid.shape
    interior = window.stencil(fields_BCyX, 1, form)
    edge = window.edges(fields_BCyX[:, 1])
    return {
        "interior": Term(interior, scale, (height - 2) * (width - 2)),
        "boundary": Term(edge, edge_scale, 2 * (height + width) - 4),
    }


def inside_edge(field_ByX: Tensor, window: Window) -> Tensor:
    """Return a field at interior nodes, the rows at hand."""
    return field_ByX[:, int(window.first) : field_ByX.shape[1] - int(window.last), 1:-1]


def within_edge(interior_ByX: Tensor, window: Window) -> Tensor:
    """Return a field at interior nodes with an edge of zeros, the inverse of `inside_edge`."""
    return functional.pad(interior_ByX, (1, 1, int(window.first), int(window.last)))


@dataclass(frozen=True)
class ShiftedPoisson(Equation):
    """lap u + shift u = f, where f has covariance (-lap + tau^2)^-alpha scaled to root mean square 1.

    Attributes:
        splits: True: the residual asks the window for the rows that it lacks.
        exact: True: one step of `correct` leaves nothing to correct.
        name: Name of the equation.
        shift: Factor of u.
        alpha: Exponent of the covariance of f.
        tau: Inverse length of that covariance.
        stream: Name of the random stream that sources are drawn from.
        channels: Source and solution.
    """

    splits: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    name: str
    shift: float
    alpha: float
    tau: float
    stream: str
    channels: tuple[Channel, ...] = (Channel("source", "1", "input"), Channel("solution", "1", "solution"))

    @property
    def constraints(self) -> tuple[str, ...]:
        """`zero_edge`: the solution is 0 on the edge."""
        return ("zero_edge",)

    @property
    def residual_scale(self) -> float:
        """Size of the source, which is 1."""
        return 1.0

    @property
    def solution_scale(self) -> float:
        """Typical root mean square of u, from the parameters alone."""
        return typical_solution(self.shift, self.alpha, self.tau)

    def grid(self, points: int) -> Grid:
        """Return the nodes of the unit square, `points` a side."""
        return Grid((points, points), (1.0, 1.0), "node", "dirichlet")

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth (f, u), float64 [2, Y, X]; the source is the same field at every resolution."""
        source = cosine_field(seed, self.stream, counter, grid.shape, self.alpha, self.tau)
        return self.solve(source[None] / cosine_rms(self.alpha, self.tau), grid)[0], {}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return the source with its solution, [2, Y, X], and 0: every source is allowed."""
        from pidscale.pde.solve.sine import solve_shifted_poisson

        source = np.asarray(fields[0], dtype=np.float64)
        return np.stack([source, solve_shifted_poisson(source, self.shift, grid.extent)]), 0

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the source with the solution that its sine transform gives, exact. Two transposes."""
        solution = solve_dirichlet(inside_edge(fields_BCYX[:, 0], window), window, self.shift)
        return torch.stack([fields_BCYX[:, 0], within_edge(solution, window)], dim=1)

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """Return lap u + shift u - f at interior nodes [B, Y - 2, X - 2], and u on the edge [B, 2 (Y + X) - 4]."""

        def form(fields: Tensor) -> Tensor:
            own = (self.shift * fields[:, 1] - fields[:, 0])[:, 1:-1, 1:-1]
            return laplacian(fields[:, 1], window.grid.spacing) + own

        return nodal_terms(window, fields_BCYX, form, self.residual_scale, self.solution_scale)

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Return the squared dual norm [B] of the interior residual relative to that of a typical source."""
        return dual_square_dirichlet(term.values, window) / typical_dual_square(self.alpha, self.tau)

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Return the fields after damped Jacobi sweeps (weight 0.8) on the solution; its edge does not change."""
        fields = fields_BCYX.clone()
        diagonal = 2 / grid.spacing[0] ** 2 + 2 / grid.spacing[1] ** 2 - self.shift
        for _ in range(sweeps):
            left = laplacian(fields[:, 1], grid.spacing) + self.shift * fields[:, 1, 1:-1, 1:-1]
            fields[:, 1, 1:-1, 1:-1] += 0.8 / diagonal * (left - fields[:, 0, 1:-1, 1:-1])
        return fields
