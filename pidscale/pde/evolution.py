"""Base class of equations in time: the channels are frames of a state at even intervals, the first frame is the input.

The residual is taken over every interval between two frames, relative to that of the initial state repeated at all times, so
that this null solution scores 1. Knows no files, no models and no ranks.
Shapes: frames_BFSYX, F frames of S species; in the joint field [B, F S, Y, X] the species of a frame are neighbours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidscale.caller import kept
from pidscale.ops.grid import Grid
from pidscale.ops.spectral import dual_square_periodic, dual_square_zero_flux
from pidscale.ops.window import Window
from pidscale.pde.base import Channel, Equation, Pde
from pidscale.pde.parameters import draw_params, given_params
from pidscale.pde.random_fields import COVARIANCE
from pidscale.pde.terms import Term

RANGES = COVARIANCE | {"duration": (1e-3, 100.0)}  # of parameters that all equations in time have
FRAMES = {"frames": (4, 101)}  # of the number of frames
L2_SHARE = 1e-3  # of the squared l2 norm in the size of a residual that a correction lowers
TYPICAL_POINTS = 32  # points a side of the grid that scales are measured on
TYPICAL_SAMPLES = 32  # samples that scales are measured on


@dataclass(frozen=True)
class Evolution(Equation, ABC):
    """Frames of one or more species.

    Attributes:
        name: Name of the equation.
        species: Names of the fields that make up a state.
        frames: Number of frames.
        duration: Time from the first frame to the last.
    """

    name: str
    species: tuple[str, ...]
    frames: int
    duration: float

    @property
    def interval(self) -> float:
        """Time between two frames."""
        return self.duration / (self.frames - 1)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """One channel `SPECIES_NN` for each frame NN and species; those of the first frame are the input."""
        return tuple(
            Channel(f"{species}_{frame:02d}", "1", "input" if frame == 0 else "solution")
            for frame in range(self.frames)
            for species in self.species
        )

    @property
    def residual_scale(self) -> float:
        """Residual of stationary states, root mean square over a fixed set of them."""
        return stationary_scales(self)[0]

    @abstractmethod
    def grid(self, points: int) -> Grid:
        """Return the grid with `points` points a side."""

    @abstractmethod
    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """Return an initial state, float64 [S, Y, X], a function of seed and counter."""

    @abstractmethod
    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Return the frames that follow from an initial state, which is the first of them.

        Args:
            initial: Initial state [S, Y, X].
            grid: Grid of the state.
            params: Varying parameters of this sample, in the order of `varying`.

        Returns:
            Frames, float64 [F, S, Y, X].
        """

    @abstractmethod
    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the residual of every interval; interval n leads from frame n to frame n + 1.

        Args:
            frames_BFSYX: Frames, the rows at hand.
            window: The rows at hand and the way to ask for the others.
            params_BP: Varying parameters of each sample.

        Returns:
            Residual [B, F - 1, S, Y, X].
        """

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth, float64 [F S, Y, X], and its varying parameters by name."""
        params = draw_params(self, seed, self.name, [counter])[0].tolist()
        frames = self.integrate(self.initial(seed, counter, grid), grid, params)
        return frames.reshape(-1, *grid.shape), dict(zip(self.varying, params, strict=True))

    @property
    def largest(self) -> float:
        """Largest value of a state that is solved; generated states are clipped to it to keep the integrator stable."""
        return math.inf

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return the initial state with the frames that follow, [F S, Y, X], and how many values were clipped."""
        state = np.asarray(fields[: len(self.species)], dtype=np.float64)
        frames = self.integrate(np.clip(state, -self.largest, self.largest), grid, params)
        frames[0] = state
        return frames.reshape(-1, *grid.shape), int((np.abs(state) > self.largest).sum())

    def _frames(self, fields_BCYX: Tensor) -> Tensor:
        return fields_BCYX.unflatten(1, (self.frames, len(self.species)))

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """Return the residual of every interval [B, F - 1, S, Y, X]; the operators hold the boundary, which has no term."""
        params = given_params(self, fields_BCYX, params_BP)
        return {"interior": self._term(self.interval_residual(self._frames(fields_BCYX), window, params), window)}

    def _term(self, values_BISYX: Tensor, window: Window) -> Term:
        """Return the term of a residual of intervals."""
        points = (self.frames - 1) * len(self.species) * math.prod(window.grid.shape)
        return Term(values_BISYX, self.residual_scale, points, self.frames - 1)

    def size(self, values_BISYX: Tensor, window: Window) -> Tensor:
        """Return what a correction lowers [B]. One sum over the processes that share a field."""
        return window.total(share_of_size(self, self._term(values_BISYX, window), window))

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Return the squared dual norm [B] in space, mean over intervals and species, relative to stationary states."""
        return _dual_square(term.values, window) / stationary_scales(self)[1] ** 2

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """Return the initial state at all times."""
        return fields_BCYX[:, : len(self.species)].repeat(1, self.frames, 1, 1)

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Return the fields after steps of steepest descent of the squared residual over the frames after the first.

        Jacobi sweeps, which smooth in space, would pass errors on from frame to frame.
        """
        free = torch.ones_like(fields_BCYX)
        free[:, : len(self.species)] = 0
        params = given_params(self, fields_BCYX, params_BP)
        window = Window(grid)
        return descend(lambda x: self.interval_residual(self._frames(x), window, params), fields_BCYX, free, sweeps)


@dataclass(frozen=True)
class PeriodicEvolution(Evolution):
    """States of mean zero on the periodic unit square."""

    @property
    def constraints(self) -> tuple[str, ...]:
        """`zero_mean`: the mean of a state is zero at all times."""
        return ("zero_mean",)

    def grid(self, points: int) -> Grid:
        """Return the periodic unit square, `points` points a side."""
        return Grid((points, points), (1.0, 1.0), "periodic", "periodic")


def share_of_size(pde: Pde, term: Term, window: Window) -> Tensor:
    """Return the share of the rows at hand in what a correction lowers [B]: the squared dual norm, a little of the l2 norm.

    The dual norm alone leaves out constants.
    """
    return pde.dual_square(term, window) + L2_SHARE * term.share()


def descend(residual: Callable[[Tensor], Tensor], fields: Tensor, free: Tensor, steps: int) -> Tensor:
    """Return fields after steps of steepest descent of a squared residual, each of the best length for its sample.

    Args:
        residual: Residual [B, ...] of fields.
        fields: Fields to begin with [B, C, Y, X].
        free: 1 where values may change, 0 elsewhere; in the shape of the fields.
        steps: Number of steps.

    Returns:
        Fields [B, C, Y, X], detached.
    """
    fields = fields.detach().clone()
    for _ in range(steps):
        with torch.enable_grad():
            x = fields.requires_grad_()
            before = residual(x).flatten(1)
            (down,) = torch.autograd.grad(0.5 * before.square().sum(), x)
        fields = fields.detach()
        before = before.detach()
        down = down * free
        small = 1e-3 * fields.square().mean().sqrt() / down.square().mean().sqrt().clamp_min(1e-30)
        change = (before - residual(fields - small * down).flatten(1)) / small
        best = (before * change).sum(dim=1) / change.square().sum(dim=1).clamp_min(1e-30)
        fields = fields - best[:, None, None, None] * down
    return fields


def _dual_square(values: Tensor, window: Window) -> Tensor:
    """Return the squared dual norm in space of values [B, ..., Y, X], mean over the dims between, [B]."""
    dual = dual_square_zero_flux if window.grid.kind == "cell" else dual_square_periodic
    return dual(values.flatten(0, -3), window).unflatten(0, values.shape[:-2]).flatten(1).mean(dim=1)


@kept(64)
def stationary_scales(pde: Evolution) -> tuple[float, float]:
    """Return root mean square and dual norm of the residual of stationary states, over a fixed set of initial states."""
    grid = pde.grid(TYPICAL_POINTS)
    window = Window(grid)
    counters = range(2**50, 2**50 + TYPICAL_SAMPLES)
    states = np.stack([pde.initial(0, counter, grid) for counter in counters])
    frames = torch.from_numpy(states)[:, None].repeat(1, pde.frames, 1, 1, 1)
    values = pde.interval_residual(frames, window, draw_params(pde, 0, pde.name, counters))
    return float(values.square().mean().sqrt()), float(_dual_square(values, window).mean().sqrt())
