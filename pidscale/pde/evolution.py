"""What equations in time share: frames of a state at even intervals are the channels, the first frame is the input.

Residuals are those of every interval, relative to the residual of a state that stands still: the score of nothing is 1.
Knows no files, no models and no ranks.
Shapes: frames_BFSYX, F frames of S species; the joint field [B, F S, Y, X] has the species of a frame side by side.
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
from pidscale.pde.base import Channel, Equation
from pidscale.pde.parameters import draw_params, given_params
from pidscale.pde.random_fields import LAW
from pidscale.pde.terms import Term

RANGES = LAW | {"duration": (1e-3, 100.0)}  # of the parameters that all equations in time have
FRAMES = {"frames": (4, 101)}
TYPICAL_POINTS, TYPICAL_SAMPLES = 32, 32  # grid and samples that the scale is measured on


@dataclass(frozen=True)
class Evolution(Equation, ABC):
    """Frames of one or more species. duration: time from the first frame to the last."""

    name: str
    species: tuple[str, ...]
    frames: int
    duration: float

    @property
    def interval(self) -> float:
        """Time between frames."""
        return self.duration / (self.frames - 1)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Frames in order, `SPECIES_NN`; those of the first frame are the input."""
        return tuple(
            Channel(f"{species}_{frame:02d}", "1", "input" if frame == 0 else "solution")
            for frame in range(self.frames)
            for species in self.species
        )

    @property
    def residual_scale(self) -> float:
        """The residual of a state that stands still, RMS over a fixed set of initial states: of the parameters alone."""
        return standing_scales(self)[0]

    @abstractmethod
    def grid(self, points: int) -> Grid:
        """The grid with `points` points a side."""

    @abstractmethod
    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""

    @abstractmethod
    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """An initial state, float64 [S, Y, X], a function of (seed, counter)."""

    @abstractmethod
    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """The frames that follow from an initial state [S, Y, X], itself first: float64 [F, S, Y, X]."""

    @abstractmethod
    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """The residual of every interval, [B, F - 1, S, Y, X]; interval n is what frame n + 1 obeys."""

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """One truth, float64 [F S, Y, X], and what varies of its parameters."""
        params = draw_params(self, seed, self.name, [counter])[0].tolist()
        frames = self.integrate(self.initial(seed, counter, grid), grid, params)
        return frames.reshape(-1, *grid.shape), dict(zip(self.varying, params, strict=True))

    @property
    def largest(self) -> float:
        """The largest size of a state that is solved: a generated one beyond it is cut to it, and integrators stay stable."""
        return math.inf

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """The initial state with the frames that follow, [F S, Y, X]; points beyond `largest` are cut to it and counted."""
        state = np.asarray(fields[: len(self.species)], dtype=np.float64)
        frames = self.integrate(np.clip(state, -self.largest, self.largest), grid, params)
        frames[0] = state
        return frames.reshape(-1, *grid.shape), int((np.abs(state) > self.largest).sum())

    def _frames(self, fields_BCYX: Tensor) -> Tensor:
        return fields_BCYX.unflatten(1, (self.frames, len(self.species)))

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """The residual of every interval [B, F - 1, S, Y, X]; the boundary is in the operators and has no term."""
        params = given_params(self, fields_BCYX, params_BP)
        values = self.interval_residual(self._frames(fields_BCYX), window, params)
        points = (self.frames - 1) * len(self.species) * math.prod(window.grid.shape)
        return {"interior": Term(values, self.residual_scale, points, self.frames - 1)}

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Squared dual norm [B] in space, mean over intervals and species, relative to that of a state that stands still."""
        return dual_square_of(term.values, window) / standing_scales(self)[1] ** 2

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """The initial state at all times."""
        return fields_BCYX[:, : len(self.species)].repeat(1, self.frames, 1, 1)

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Steps of steepest descent of the squared residual over the frames after the first.

        (Jacobi sweeps, which smooth in space, would carry errors on from frame to frame.)
        """
        free = torch.ones_like(fields_BCYX)
        free[:, : len(self.species)] = 0
        params = given_params(self, fields_BCYX, params_BP)
        window = Window(grid)
        return descend(lambda x: self.interval_residual(self._frames(x), window, params), fields_BCYX, free, sweeps)


@dataclass(frozen=True)
class PeriodicEvolution(Evolution):
    """On the periodic unit square, of states without mean."""

    @property
    def constraints(self) -> tuple[str, ...]:
        """The state has no mean, at any time."""
        return ("zero_mean",)

    def grid(self, points: int) -> Grid:
        """The periodic unit square, `points` points a side."""
        return Grid((points, points), (1.0, 1.0), "periodic", "periodic")


def descend(residual: Callable[[Tensor], Tensor], fields: Tensor, free: Tensor, steps: int) -> Tensor:
    """Steps of steepest descent of a squared residual [B, ...], each of the best length for its sample.

    free: 1 where values may move, 0 elsewhere.
    """
    fields = fields.detach().clone()
    for _ in range(steps):
        with torch.enable_grad():
            x = fields.requires_grad_()
            before = residual(x).flatten(1)
            (down,) = torch.autograd.grad(0.5 * before.square().sum(), x)
        fields, before, down = fields.detach(), before.detach(), down * free
        small = 1e-3 * fields.square().mean().sqrt() / down.square().mean().sqrt().clamp_min(1e-30)
        change = (before - residual(fields - small * down).flatten(1)) / small
        best = (before * change).sum(dim=1) / change.square().sum(dim=1).clamp_min(1e-30)
        fields = fields - best[:, None, None, None] * down
    return fields


def dual_square_of(values: Tensor, window: Window) -> Tensor:
    """Squared dual norm in space of [B, ..., Y, X], mean over what lies between, [B]."""
    dual = dual_square_zero_flux if window.grid.kind == "cell" else dual_square_periodic
    return dual(values.flatten(0, -3), window).reshape(len(values), -1).mean(dim=1)


@kept(64)
def standing_scales(pde: Evolution) -> tuple[float, float]:
    """RMS and dual RMS of the residual of states that stand still, over a fixed set of initial states and parameters."""
    grid, counters = pde.grid(TYPICAL_POINTS), range(2**50, 2**50 + TYPICAL_SAMPLES)
    states = np.stack([pde.initial(0, counter, grid) for counter in counters])
    frames, window = torch.from_numpy(states)[:, None].repeat(1, pde.frames, 1, 1, 1), Window(grid)
    values = pde.interval_residual(frames, window, draw_params(pde, 0, pde.name, counters))
    return float(values.square().mean().sqrt()), float(dual_square_of(values, window).mean().sqrt())
