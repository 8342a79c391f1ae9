"""Base class of equations on a strip, whose rows are times: a state along a line, followed from row to row.

The first row is the initial state and an input, the other rows are solution. The residual is taken over every interval
between two rows, relative to that of the initial state repeated at all times, so that this null solution scores 1. Knows no
files, no models and no ranks.
Shapes: u_BTX, T times at X points of the line; the joint field [B, 1, T, X] has one channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.caller import kept
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import dual_square_dirichlet_line, dual_square_periodic_line
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Equation
from pidscale.pde.evolution import TYPICAL_POINTS, TYPICAL_SAMPLES, descend, share_of_size
from pidscale.pde.parameters import draw_params, given_params
from pidscale.pde.terms import Term


@dataclass(frozen=True)
class Strip(Equation, ABC):
    """A state along a line over time, as one field.

    Attributes:
        splits: True: `interval_residual` asks the window for the rows that it lacks.
        params: Parameters of the equation.
        name: Name of the equation.
        channels: The one channel.
    """

    splits: ClassVar[bool] = True
    params: Any
    name: str
    channels: tuple[Channel, ...]

    @property
    def residual_scale(self) -> float:
        """Residual of stationary states, root mean square over a fixed set of them."""
        return stationary_scales(self)[0]

    @abstractmethod
    def grid(self, points: int) -> Grid:
        """Return the grid of `points` times by `points` points of the line."""

    @abstractmethod
    def initial(self, seed: int, counter: int, points: int) -> np.ndarray:
        """Return an initial state on `points` points, float64 [X], a function of seed and counter."""

    @abstractmethod
    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth, float64 [1, T, X], and its varying parameters."""

    @abstractmethod
    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return the field [1, T, X] that follows from its inputs, and how many of them had to be limited."""

    @abstractmethod
    def interval_residual(self, u_BTX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the residual of the intervals between rows, [B, T - 1, ...].

        Args:
            u_BTX: The rows at hand.
            window: Their window; the interval after a row belongs to the process that holds the row.
            params_BP: Varying parameters of each sample.

        Returns:
            Residual at those points of the line where the equation is imposed.
        """

    def unknown(self, grid: Grid) -> Tensor:
        """Return True on all rows but the first, which is the initial state, bool [T, X]."""
        places = super().unknown(grid)
        places[0] = False
        return places

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """Return the residual of every interval; there is no boundary term."""
        params = given_params(self, fields_BCYX, params_BP)
        return {"interior": self._term(self.interval_residual(fields_BCYX[:, 0], window, params), window)}

    def _term(self, values_BTX: Tensor, window: Window) -> Term:
        """Return the term of a residual of intervals."""
        intervals = window.grid.shape[0] - 1
        return Term(values_BTX, self.residual_scale, intervals * values_BTX.shape[-1], intervals)

    def size(self, values_BTX: Tensor, window: Window) -> Tensor:
        """Return what a correction lowers [B]. One sum over the processes that share a field."""
        return window.total(share_of_size(self, self._term(values_BTX, window), window))

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Return the squared dual norm [B] along the line, mean over intervals, relative to that of stationary states."""
        return _dual_square(term.values, window.grid) / stationary_scales(self)[1] ** 2

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """Return the initial state at all times, ends of the line included: with those of the truth it would jump there."""
        first = window.top_row(fields_BCYX) if window else fields_BCYX[:, :, :1]
        return first.expand_as(fields_BCYX).clone()

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Return the fields after steps of steepest descent of the squared residual over the solution."""
        params = given_params(self, fields_BCYX, params_BP)
        free = self.unknown(grid).to(fields_BCYX).expand_as(fields_BCYX)
        window = Window(grid)
        return descend(lambda x: self.interval_residual(x[:, 0], window, params), fields_BCYX, free, sweeps)


def _dual_square(values_BTX: Tensor, grid: Grid) -> Tensor:
    """Return the squared dual norm along the line, mean over the intervals of the whole grid, [B]."""
    dual = dual_square_periodic_line if grid.boundary == "periodic" else dual_square_dirichlet_line
    lines = dual(values_BTX.flatten(0, 1), grid.spacing[1])
    return lines.unflatten(0, values_BTX.shape[:2]).flatten(1).sum(dim=1) / (grid.shape[0] - 1)


@kept(64)
def stationary_scales(pde: Strip) -> tuple[float, float]:
    """Return root mean square and dual norm of the residual of stationary states, over a fixed set of initial states."""
    grid = pde.grid(2 * TYPICAL_POINTS)
    times, points = grid.shape
    counters = range(2**50, 2**50 + TYPICAL_SAMPLES)
    states = np.stack([pde.initial(0, counter, points) for counter in counters])
    rows = torch.from_numpy(states)[:, None].repeat(1, times, 1)
    values = pde.interval_residual(rows, Window(grid), draw_params(pde, 0, pde.name, counters))
    return float(values.square().mean().sqrt()), float(_dual_square(values, grid).mean().sqrt())
