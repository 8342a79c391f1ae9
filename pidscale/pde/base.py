"""What an equation offers to the rest of the system. Knows no equation, no files and no ranks.

Shapes: fields_BCYX joint physical fields, one channel for each of `channels`, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.ops.precision import float32_island
from pidscale.ops.window import Window


@dataclass(frozen=True)
class Channel:
    """One physical field: its name, its unit, and whether it is an `input` or a `solution` of the equation."""

    name: str
    unit: str
    role: str


@dataclass(frozen=True)
class Term:
    """One term of a residual: values [B, ...] and its scale, which the data set fixes and no generated sample can move."""

    values: Tensor
    scale: float


class Pde(Protocol):
    """An equation: its channels, its data and its residual. A value: equal ones have equal parameters."""

    def __hash__(self) -> int:
        """Frozen dataclasses have one."""
        ...

    @property
    def name(self) -> str:
        """The equation's name."""
        ...

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The physical fields, in the order of the joint field."""
        ...

    @property
    def residual_scale(self) -> float:
        """The scale of the interior residual: a size of the equation's own terms, from the parameters alone."""
        ...

    def grid(self, points: int) -> Grid:
        """The grid of this equation with `points` points a side."""
        ...

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        ...

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """One truth: float64 [C, Y, X] in physical units and its own parameters; a function of (seed, counter)."""
        ...

    @property
    def given_rows(self) -> int:
        """First rows of a solution channel that are input: 1 where rows are times and the first one is the initial state."""
        ...

    def solve(self, fields: np.ndarray, grid: Grid) -> tuple[np.ndarray, int]:
        """One joint field [C, Y, X] with its solution replaced by a numerical one, and how many points were made legal."""
        ...

    def residual(self, window: Window, fields_BCYX: Tensor) -> dict[str, Term]:
        """The residual's terms by name: `interior`, and `boundary` where there is one. Differentiable; float32 or better."""
        ...

    def dual_square(self, term: Term, grid: Grid) -> Tensor:
        """Squared dual norm [B] of the interior term relative to that of the equation's own scale."""
        ...

    def trivial(self, fields_BCYX: Tensor) -> Tensor:
        """The same inputs with a null solution: what a residual must tell from the truth."""
        ...

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid) -> Tensor:
        """The fields after sweeps that lower the residual without any learning: the honest row beside every residual."""
        ...

    def phase_error(self, fields_BCYX: Tensor) -> Tensor | None:
        """Mean distance [B] of a two-phase coefficient to its nearest phase, or None where there are no phases."""
        ...


def solution_mask(pde: Pde, grid: Grid) -> Tensor:
    """Which values of a joint field are solution, bool [C, Y, X]; all others are input."""
    mask = torch.zeros(len(pde.channels), *grid.shape, dtype=torch.bool)
    for channel, field in zip(pde.channels, mask, strict=True):
        field[pde.given_rows :] = channel.role == "solution"
    return mask


def shown_channels(pde: Pde, most: int = 4) -> list[int]:
    """Channel indices for tables and pictures: all of a few, the first, the last and some between of many frames."""
    count = len(pde.channels)
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if count > most else list(range(count))


def shuffled(pde: Pde, grid: Grid, fields_BCYX: Tensor) -> Tensor:
    """The inputs of each sample with the solution of the one before it: what a residual must tell from the truth too."""
    mask = solution_mask(pde, grid).to(fields_BCYX.device)
    return torch.where(mask, fields_BCYX.roll(1, dims=0), fields_BCYX)


def residual_squares(pde: Pde, grid: Grid, fields_BCYX: Tensor) -> dict[str, Tensor]:
    """Squared relative residuals per sample, each [B]: `l2`, `dual` (interior) and `boundary`.

    A value of 1 is the equation's own scale. Works outside autocast, in float32 or better.
    """
    with float32_island(fields_BCYX.device):
        fields = fields_BCYX if fields_BCYX.dtype == torch.float64 else fields_BCYX.float()
        window = Window(grid)
        terms = pde.residual(window, fields)
        squares = {"dual": pde.dual_square(terms["interior"], grid)}
        for name, label in (("interior", "l2"), ("boundary", "boundary")):
            if name in terms:
                total, count = window.square_sum(terms[name].values)
                squares[label] = total / (count * terms[name].scale ** 2)
            else:  # the operators hold the boundary: nothing can break it
                squares[label] = fields.new_zeros(len(fields))
    return squares


def check_params(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults updated by the given parameters. Raises UserError that names an unknown or ill-typed one."""
    for key, value in given.items():
        if key not in defaults:
            raise UserError(f"pde.params.{key}: {name} has no such parameter; it has {sorted(defaults)}")
        wanted = type(defaults[key])
        if isinstance(value, bool) != (wanted is bool) or not isinstance(
            value, (int, float) if wanted is float else wanted
        ):
            raise UserError(f"pde.params.{key}={value!r}: expected a {wanted.__name__}")
    return dict(defaults) | dict(given)


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise UserError that names the first parameter outside its range, both ends included."""
    for key, (least, most) in ranges.items():
        if not least <= values[key] <= most:
            raise UserError(f"pde.params.{key}={values[key]}: expected {least:g} to {most:g}")
