"""Darcy flow between two wells: the data set of PIDM (Bastek, Sun and Kochmann, ICLR 2025), as an equation of one's own.

    -div(a grad u) = f   on the unit square, no flux through its edge, u of mean 0

    a   permeability exp(g); g is normal with covariance exp(-|x - y| / length), cut to its `modes` strongest modes
    f   `rate` in the square [0, 1/8]^2 and -`rate` in the opposite corner, 0 elsewhere
    u   pressure

Fields are given at cell centres, where the flux form holds its edge without further terms. The paper takes the residual by
differences that are not in flux form, on nodes, and its generator by the same ones; so does this file in its own way: the
flux form in both, written twice.

Terms: `interior` div(a grad u) + f, relative to the root mean square of f; `boundary` the mean of u, relative to a typical u.
docs/own_equation.md explains what an equation of one's own consists of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale import seeds
from pidscale.ops.grid import Grid
from pidscale.ops.krylov import conjugate_gradients
from pidscale.ops.spectral import dual_square_zero_flux, inverse_laplacian
from pidscale.ops.stencil import flux_divergence
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Equation
from pidscale.pde.parameters import read_params
from pidscale.pde.terms import Term

WELL = 0.125  # side of a well
QUADRATURE = 40  # points a side on which the modes of the covariance are computed
PRESSURE = 0.007  # typical root mean square of u for a rate of 1
LOWEST = 1e-3  # a generated permeability is raised to this before it is solved


@dataclass(frozen=True)
class WellsParams:
    """Parameters of the equation and of its data.

    Attributes:
        rate: f in the first well, 0.01 to 1e4.
        length: Correlation length of g, 0.02 to 1.
        modes: Number of modes of g, 1 to 400.
    """

    rate: float = 10.0
    length: float = 0.1
    modes: int = 64


@dataclass(frozen=True)
class Wells(Equation):
    """-div(a grad u) = f on cells, without flux through the edge."""

    splits: ClassVar[bool] = True
    params: WellsParams = WellsParams()
    name: str = "wells:Wells"
    channels: tuple[Channel, ...] = (
        Channel("permeability", "1", "input", positive=True),
        Channel("pressure", "1", "solution"),
    )

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Wells:
        """Return the equation with the values of pde.params."""
        ranges = {"rate": (0.01, 1e4), "length": (0.02, 1.0), "modes": (1, 400)}
        return cls(read_params("wells", WellsParams, given, ranges))

    @property
    def residual_scale(self) -> float:
        """Root mean square of f."""
        return self.params.rate * (2 * WELL**2) ** 0.5

    @property
    def lowest(self) -> float:
        """Smallest permeability that is solved; generated values below it are raised to it."""
        return LOWEST

    def grid(self, points: int) -> Grid:
        """Return the cells of the unit square."""
        return Grid((points, points), (1.0, 1.0), "cell", "zero_flux")

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth (a, u), float64 [2, Y, X]; g is the same function at every resolution."""
        modes = covariance_modes(grid.shape, self.params.length, self.params.modes)
        drawn = seeds.normal(seed, "wells/permeability", [counter], (1, 1, self.params.modes)).numpy().ravel()
        a = np.exp(np.tensordot(drawn.astype(np.float64), modes, axes=1))
        return self.solve(a[None], grid)[0], {}

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return the permeability with its pressure, [2, Y, X], and at how many points it was raised to `lowest`."""
        a = np.asarray(fields[0], dtype=np.float64)
        pressure = balance(np.maximum(a, LOWEST), source(grid.shape, self.params.rate), grid.extent)
        return np.stack([a, pressure]), int((a < LOWEST).sum())

    def refused(self, fields_BCYX: Tensor) -> Tensor:
        """Return at how many points of each sample the permeability is below `lowest`, [B]."""
        return (fields_BCYX[:, 0] < LOWEST).flatten(1).sum(dim=1)

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """Return div(a grad u) + f in every cell, and the mean of u."""
        values = self._flux(window, fields_BCYX) + self._source(window, fields_BCYX)
        cells = window.grid.shape[0] * window.grid.shape[1]
        mean = window.total(fields_BCYX[:, 1].flatten(1).sum(dim=1, keepdim=True)) / cells
        return {
            "interior": Term(values, self.residual_scale, cells),
            "boundary": Term(mean, PRESSURE * self.params.rate, window.holders),  # every holder has the whole mean
        }

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Return the squared dual norm [B] of the interior residual relative to that of f."""
        whole = torch.from_numpy(source(window.grid.shape, self.params.rate))[None]
        of_source = float(dual_square_zero_flux(whole, Window(window.grid)))
        return dual_square_zero_flux(term.values, window) / of_source

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the fields after steps of conjugate gradients on the pressure.

        The preconditioner is the inverse of -sqrt(a) lap sqrt(a): near the operator where a varies smoothly.
        """
        a = fields_BCYX[:, 0].clamp_min(LOWEST)
        root = a.sqrt()
        cells = window.grid.shape[0] * window.grid.shape[1]

        def without_mean(u: Tensor) -> Tensor:
            return u - window.total(u.sum(dim=(1, 2), keepdim=True)) / cells

        def flux(u: Tensor) -> Tensor:
            return self._flux(window, torch.stack([a, u], dim=1))

        pressure = conjugate_gradients(
            residual=lambda u: without_mean(flux(u) + self._source(window, fields_BCYX)),
            operator=lambda u: -flux(u),
            precondition=lambda r: without_mean(inverse_laplacian(window, r / root) / root),
            guess=without_mean(fields_BCYX[:, 1]),
            steps=steps,
            total=window.total,
        )
        return torch.stack([fields_BCYX[:, 0], without_mean(pressure)], dim=1)

    def _flux(self, window: Window, fields_BCYX: Tensor) -> Tensor:
        """Return div(a grad u) in every cell: beyond the edge a cell repeats, so that nothing flows through it."""
        return window.stencil(fields_BCYX, 1, lambda x: flux_divergence(x[:, 0], x[:, 1], window.grid.spacing))

    def _source(self, window: Window, like: Tensor) -> Tensor:
        """Return f in the cells at hand, [1, y, X]."""
        f = torch.from_numpy(source(window.grid.shape, self.params.rate))
        return window.crop(f)[None].to(like)


@lru_cache(maxsize=8)
def source(shape: tuple[int, int], rate: float) -> np.ndarray:
    """Return the mean of f over every cell, float64 [Y, X], which adds up to 0."""

    def covered(points: int) -> np.ndarray:
        return np.clip(WELL * points - np.arange(points), 0.0, 1.0)

    first = np.outer(covered(shape[0]), covered(shape[1]))
    return rate * (first - first[::-1, ::-1])


@lru_cache(maxsize=8)
def covariance_modes(shape: tuple[int, int], length: float, count: int) -> np.ndarray:
    """Return the strongest modes of exp(-|x - y| / length) at cell centres [count, Y, X].

    Each is multiplied by the root of its variance. The modes are those of the integral over QUADRATURE^2 midpoints, continued
    to any other point by the same integral.
    """

    def centres(points: tuple[int, int]) -> np.ndarray:
        y, x = ((np.arange(n) + 0.5) / n for n in points)
        return np.stack([np.repeat(y, points[1]), np.tile(x, points[0])], axis=1)

    def covariance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.exp(-np.linalg.norm(one[:, None] - other[None], axis=2) / length)

    knots = centres((QUADRATURE, QUADRATURE))
    weight = 1 / len(knots)
    variances, vectors = np.linalg.eigh(covariance(knots, knots) * weight)
    variances, vectors = variances[::-1][:count], vectors[:, ::-1][:, :count]
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)] < 0, -1.0, 1.0)
    continued = covariance(centres(shape), knots) @ vectors * (weight / variances)
    return (continued * np.sqrt(variances / weight)).T.reshape(count, *shape)


def balance(a: np.ndarray, f: np.ndarray, extent: tuple[float, float]) -> np.ndarray:
    """Solve -div(a grad u) = f without flux through the edge, u of mean 0, by balancing every cell; float64 [Y, X]."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    height, width = a.shape
    number = np.arange(a.size).reshape(a.shape)
    matrix = sparse.csc_matrix((a.size, a.size))
    for axis, step in ((0, extent[0] / height), (1, extent[1] / width)):
        here, there = (np.delete(number, edge, axis=axis).ravel() for edge in (-1, 0))
        face = (a.ravel()[here] + a.ravel()[there]) / (2 * step**2)
        for row, column, sign in ((here, here, 1), (there, there, 1), (here, there, -1), (there, here, -1)):
            matrix = matrix + sparse.csc_matrix((sign * face, (row, column)), shape=matrix.shape)
    # the balances of all cells add up to 0, so that one of them may give way to a value of u
    u = np.zeros(a.size)
    u[1:] = splu(matrix[1:, 1:].tocsc()).solve(f.ravel()[1:])
    return (u - u.mean()).reshape(a.shape)
