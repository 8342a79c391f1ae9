"""The protocol that every equation implements, and what follows from it alone. Knows no equation, no files and no ranks.

Shapes: fields_BCYX joint physical fields, one channel for each entry of `channels`, in that order; params_BP the parameters
that vary from sample to sample, one column for each entry of `varying`, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.terms import Term

UNSEEN = 2**41  # counters from here on belong to no shard set


@dataclass(frozen=True)
class Channel:
    """One physical field of the joint field.

    Attributes:
        name: Name of the field, unique within its equation.
        unit: Physical unit, "1" where it is dimensionless.
        role: `input` or `solution` of the equation.
        positive: Whether the equation only holds where the field is above zero.
    """

    name: str
    unit: str
    role: str
    positive: bool = False


class Samples(NamedTuple):
    """Joint physical fields and the parameters of each sample.

    Attributes:
        fields: Joint physical fields [N, C, Y, X].
        params: Parameters that vary from sample to sample [N, P].
    """

    fields: Tensor
    params: Tensor

    def first(self, count: int) -> Samples:
        """Return the first `count` samples, on the CPU."""
        return Samples(self.fields[:count].detach().cpu(), self.params[:count].cpu())

    def on(self, device: torch.device) -> Samples:
        """Return the same samples with their fields on `device`, where ranks exchange them; parameters stay."""
        return Samples(self.fields.to(device), self.params)


class Controls(Protocol):
    """The part of an equation that makes controls: fields that a generated one is compared with.

    Training needs `trivial` alone, to bound the scales of the residual. `Equation` has defaults for all but `solve`.
    """

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """Return a joint field with its solution replaced by a numerical one.

        Args:
            fields: Joint physical field [C, Y, X].
            grid: Grid of the field.
            params: Varying parameters of this sample, in the order of `varying`.

        Returns:
            The joint field, float64 [C, Y, X], and the number of input values that had to be moved into the range that the
            solver accepts. The inputs are returned as they were given.
        """

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """Return the same inputs with a null solution, whose residual has to be large.

        Args:
            fields_BCYX: Joint physical fields [B, C, Y, X].
            window: The window that the rows belong to; None for whole fields.

        Returns:
            Joint physical fields [B, C, Y, X].
        """

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Return the fields after sweeps of a smoother that lowers their residual without any learning.

        Args:
            fields_BCYX: Joint physical fields [B, C, Y, X].
            sweeps: Number of sweeps.
            grid: Grid of the fields.
            params_BP: Varying parameters of each sample.

        Returns:
            Joint physical fields [B, C, Y, X], their inputs unchanged.
        """

    def phase_error(self, fields_BCYX: Tensor) -> Tensor | None:
        """Return the mean distance [B] of a two-phase coefficient to its nearest phase, or None without phases."""


class Pde(Controls, Protocol):
    """An equation: its channels, its data and its residual. A value: equal equations have equal parameters.

    Attributes:
        splits: Whether the residual is correct for a window that holds some rows and fetches the others on request.
    """

    splits: ClassVar[bool]

    def __hash__(self) -> int:
        """Return a hash of the parameters, as frozen dataclasses do."""

    @property
    def name(self) -> str:
        """Name of the equation."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Physical fields, in the order of the joint field."""

    @property
    def residual_scale(self) -> float:
        """Scale of the interior residual: the size of the equation's own terms, a function of the parameters alone."""

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """Parameters that vary from sample to sample, and the range that each is drawn from; empty for most equations."""

    @property
    def constraints(self) -> tuple[str, ...]:
        """Hard constraints (constraints.py) that truths satisfy and a student's output may be held to."""

    def params_dict(self) -> dict[str, Any]:
        """Return the parameters as plain JSON values."""

    def grid(self, points: int) -> Grid:
        """Return the grid of this equation with `points` points a side."""

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """Return one truth, a function of seed and counter.

        Args:
            seed: Seed of the run or set.
            counter: Number of the sample in its random stream.
            grid: Grid of the result.

        Returns:
            The joint field in physical units, float64 [C, Y, X], and the varying parameters of this sample by name.
        """

    def unknown(self, grid: Grid) -> Tensor:
        """Return where a solution channel is solution and not input, bool [Y, X]: False on an initial row, for example."""

    def refused(self, fields_BCYX: Tensor) -> Tensor:
        """Return the number of input values of each sample that a solver replaces by the nearest one that it takes, [B]."""

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """Return the terms of the residual. Differentiable; runs in the dtype of the fields, float32 or float64.

        Args:
            window: The rows at hand and the way to ask for the others.
            fields_BCYX: Joint physical fields, the rows at hand.
            params_BP: Varying parameters of each sample.

        Returns:
            Terms by name: `interior`, and `boundary` unless the operators hold the boundary.
        """

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Return the squared dual norm of the interior term relative to that of the equation's own scale.

        Args:
            term: The interior term.
            window: The window that it was taken on.

        Returns:
            Share of the rows at hand [B]: the shares of all windows of a field add up to its squared norm.
        """


@runtime_checkable
class Correcting(Protocol):
    """The part of an equation that corrects solutions by steps of a solver of its own, the last layer of a generator."""

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the fields with their solution moved towards the equation; inputs stay as they are.

        Differentiable; runs in the dtype of the fields, float32 or float64. An exact solver, one step of which leaves nothing
        to correct, ignores the number of steps; its class says `exact = True`.

        Args:
            window: The rows at hand and the way to ask for the others.
            fields_BCYX: Joint physical fields, the rows at hand.
            params_BP: Varying parameters of each sample.
            steps: Number of steps, at least 1.

        Returns:
            Joint physical fields.
        """


class Equation:
    """Defaults that suit most equations: a base class for frozen dataclasses whose field `params` is a dataclass.

    By default no parameter varies, solution channels hold no input, the null solution is zero, a solver takes all inputs, and
    there are no hard constraints, no phases and no smoother.

    Attributes:
        splits: Whether the residual is correct for a window that holds some rows. An equation sets this to True once its
            residual asks the window for everything beyond its rows.
        exact: Whether one step of `correct`, if there is one, leaves nothing to correct.
        params: Parameters of the equation, a dataclass of plain values.
    """

    splits: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    params: Any

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """No parameters."""
        return {}

    @property
    def constraints(self) -> tuple[str, ...]:
        """No constraints."""
        return ()

    def params_dict(self) -> dict[str, Any]:
        """Return the parameters as plain JSON values."""
        return asdict(self.params)

    def unknown(self, grid: Grid) -> Tensor:
        """Return True everywhere, bool [Y, X]."""
        return torch.ones(grid.shape, dtype=torch.bool)

    def trivial(self: Pde, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """Return the same inputs with zeros in all solution channels."""
        return fields_BCYX.masked_fill(_is_solution(self).to(fields_BCYX.device), 0.0)

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """Return the fields unchanged: there is no smoother."""
        return fields_BCYX

    def refused(self, fields_BCYX: Tensor) -> Tensor:
        """Return zeros [B]: a solver takes all inputs."""
        return torch.zeros(len(fields_BCYX), dtype=torch.int64, device=fields_BCYX.device)

    def phase_error(self, fields_BCYX: Tensor) -> Tensor | None:
        """Return None: there are no phases."""
        return None


def _is_solution(pde: Pde) -> Tensor:
    """Return which channels are solution, bool [C, 1, 1]."""
    return torch.tensor([channel.role == "solution" for channel in pde.channels], device="cpu")[:, None, None]


@sheltered
def solution_mask(pde: Pde, grid: Grid) -> Tensor:
    """Return which values of a joint field are solution, bool [C, Y, X]; all others are input."""
    return _is_solution(pde) & pde.unknown(grid)


@sheltered
def truths(pde: Pde, seed: int, counters: Sequence[int], grid: Grid) -> Samples:
    """Return the truths of these counters as the solver makes them.

    Args:
        pde: The equation.
        seed: Seed of the random streams.
        counters: Numbers of the samples in the streams.
        grid: The grid.

    Returns:
        Fields [N, C, Y, X] and parameters [N, P], float64.
    """
    drawn = [pde.sample(seed, counter, grid) for counter in counters]
    params = np.array([[own[name] for name in pde.varying] for _, own in drawn])
    return Samples(torch.from_numpy(np.stack([fields for fields, _ in drawn])), torch.from_numpy(params))


@sheltered
def shuffled(pde: Pde, grid: Grid, fields_BCYX: Tensor) -> Tensor:
    """Return the inputs of each sample with the solution of the sample before it, whose residual has to be large."""
    mask = solution_mask(pde, grid).to(fields_BCYX.device)
    return torch.where(mask, fields_BCYX.roll(1, dims=0), fields_BCYX)


def shown_channels(pde: Pde, most: int = 4) -> list[int]:
    """Return channel indices for tables and pictures: all of a few, or first, last and some between of many frames."""
    count = len(pde.channels)
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if count > most else list(range(count))
