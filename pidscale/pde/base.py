"""What an equation offers to the rest of the system. Knows no equation, no files and no ranks.

Shapes: fields_BCYX joint physical fields, one channel for each of `channels`, in that order; params_BP the parameters that
vary from sample to sample, one column for each of `varying`, in that order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import kept, sheltered
from pidscale.config import UserError, exact
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.terms import EXTRA_MEASURES, Term
from pidscale.precision import float32_island

SLACK = 1e-6  # share of a range that a parameter may lie outside it: float32 numbers of its ends do


@dataclass(frozen=True)
class Channel:
    """One physical field: its name, its unit, and whether it is an `input` or a `solution` of the equation.

    positive: whether the equation is none where it is zero or less.
    """

    name: str
    unit: str
    role: str
    positive: bool = False


class Samples(NamedTuple):
    """Joint physical fields [N, C, Y, X] and the parameters of each [N, P]."""

    fields: Tensor
    params: Tensor

    def first(self, count: int) -> Samples:
        """The first samples, on the CPU."""
        return Samples(self.fields[:count].detach().cpu(), self.params[:count].cpu())

    def on(self, device: torch.device) -> Samples:
        """The same with their fields on a device, where ranks exchange them."""
        return Samples(self.fields.to(device), self.params)


class Pde(Protocol):
    """An equation: its channels, its data and its residual. A value: equal ones have equal parameters."""

    def __hash__(self) -> int:
        """Frozen dataclasses have one."""

    @property
    def name(self) -> str:
        """The equation's name."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The physical fields, in the order of the joint field."""

    @property
    def residual_scale(self) -> float:
        """The scale of the interior residual: a size of the equation's own terms, from the parameters alone."""

    def grid(self, points: int) -> Grid:
        """The grid of this equation with `points` points a side."""

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""

    def sample(self, seed: int, counter: int, grid: Grid) -> tuple[np.ndarray, dict[str, Any]]:
        """One truth: float64 [C, Y, X] in physical units and its own parameters; a function of (seed, counter)."""

    splits: ClassVar[
        bool
    ]  # whether its residual is right for a window that holds some rows and has the others by asking

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """Parameters that vary from sample to sample, by name, and the range each is drawn from; mostly none."""

    @property
    def constraints(self) -> tuple[str, ...]:
        """Hard constraints (constraints.py) that its truths obey and a student's output may be held to."""

    def unknown(self, grid: Grid) -> Tensor:
        """Where a solution channel is solution and not input, bool [Y, X]; False for an initial row, say."""

    def solve(self, fields: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> tuple[np.ndarray, int]:
        """One joint field [C, Y, X] with its solution replaced by a numerical one, and how many points were made legal."""

    def residual(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Term]:
        """The residual's terms by name: `interior`, and `boundary` where there is one. Differentiable; float32 or better."""

    def dual_square(self, term: Term, window: Window) -> Tensor:
        """Squared dual norm [B] of the interior term relative to that of the equation's own scale; this holder's share."""

    def trivial(self, fields_BCYX: Tensor, window: Window | None = None) -> Tensor:
        """The same inputs with a null solution: what a residual must tell from the truth. window: where rows are tiles."""

    def smooth(self, fields_BCYX: Tensor, sweeps: int, grid: Grid, params_BP: Tensor | None = None) -> Tensor:
        """The fields after sweeps that lower the residual without any learning: the honest row beside every residual."""

    def phase_error(self, fields_BCYX: Tensor) -> Tensor | None:
        """Mean distance [B] of a two-phase coefficient to its nearest phase, or None where there are no phases."""


class Equation:
    """What most equations answer alike: no parameters that vary, solution channels without any input, no phases."""

    splits: ClassVar[bool] = (
        False  # an equation says so itself, once its residual asks the window for all beyond its rows
    )

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """None."""
        return {}

    @property
    def constraints(self) -> tuple[str, ...]:
        """None."""
        return ()

    def unknown(self, grid: Grid) -> Tensor:
        """Everywhere."""
        return torch.ones(grid.shape, dtype=torch.bool)

    def phase_error(self, fields_BCYX: Tensor) -> Tensor | None:
        """None: there are no phases."""
        return None


@sheltered
def solution_mask(pde: Pde, grid: Grid) -> Tensor:
    """Which values of a joint field are solution, bool [C, Y, X]; all others are input."""
    is_solution = torch.tensor([channel.role == "solution" for channel in pde.channels])
    return is_solution[:, None, None] & pde.unknown(grid)


@sheltered
def truths(pde: Pde, seed: int, counters: Sequence[int], grid: Grid) -> Samples:
    """Truths as the generator makes them, float64."""
    drawn = [pde.sample(seed, counter, grid) for counter in counters]
    params = np.array([[own[name] for name in pde.varying] for _, own in drawn])
    return Samples(torch.from_numpy(np.stack([fields for fields, _ in drawn])), torch.from_numpy(params))


@sheltered
def draw_params(pde: Pde, seed: int, stream: str, counters: Sequence[int] | Tensor) -> Tensor:
    """The varying parameters of these counters, uniform in their ranges, float64 [B, P]."""
    if not pde.varying:
        return torch.zeros(len(counters), 0, dtype=torch.float64)
    low, high = torch.tensor(list(pde.varying.values()), dtype=torch.float64).T
    return low + (high - low) * seeds.uniform(
        seed, f"{stream}/params", torch.as_tensor(counters, device="cpu"), len(low)
    )


def condition(pde: Pde, params_BP: Tensor) -> Tensor:
    """The varying parameters as a network sees them, float32 [B, P]: each range is [-1, 1]."""
    ranges = torch.tensor(list(pde.varying.values()), dtype=params_BP.dtype, device=params_BP.device).reshape(-1, 2)
    middle, half = ranges.mean(dim=1), (ranges[:, 1] - ranges[:, 0]) / 2
    return ((params_BP - middle) / torch.where(half > 0, half, torch.ones_like(half))).float()


def given_params(pde: Pde, fields_BCYX: Tensor, params_BP: Tensor | None) -> Tensor:
    """The parameters in the type and on the device of the fields. Raises UserError where those of a sample are missing."""
    if params_BP is None and not pde.varying:
        return fields_BCYX.new_zeros(len(fields_BCYX), 0)
    if params_BP is None or params_BP.shape != (len(fields_BCYX), len(pde.varying)):
        found = "none" if params_BP is None else f"shape {tuple(params_BP.shape)}"
        raise UserError(
            f"{pde.name}: every sample has its own {', '.join(pde.varying)}: expected {len(fields_BCYX)} x "
            f"{len(pde.varying)} values beside the fields, got {found}"
        )
    return params_BP.to(fields_BCYX.dtype).to(fields_BCYX.device)  # in this order: some devices hold no float64


def shown_channels(pde: Pde, most: int = 4) -> list[int]:
    """Channel indices for tables and pictures: all of a few, the first, the last and some between of many frames."""
    count = len(pde.channels)
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if count > most else list(range(count))


@sheltered
def shuffled(pde: Pde, grid: Grid, fields_BCYX: Tensor) -> Tensor:
    """The inputs of each sample with the solution of the one before it: what a residual must tell from the truth too."""
    mask = solution_mask(pde, grid).to(fields_BCYX.device)
    return torch.where(mask, fields_BCYX.roll(1, dims=0), fields_BCYX)


@sheltered
def residual_squares(pde: Pde, grid: Grid, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Tensor]:
    """Squared relative residuals per sample, each [B]: `l2`, `dual` (interior) and `boundary`.

    A value of 1 is the equation's own scale. Works outside autocast. Raises UserError for fields that are no float32 or
    float64 [B, C, Y, X] of this equation and grid, a grid of another kind, and varying parameters that are not given.
    """
    return residual_shares(pde, Window(grid), fields_BCYX, params_BP)


def residual_shares(
    pde: Pde, window: Window, fields_BCyX: Tensor, params_BP: Tensor | None = None, extra: Collection[str] = ()
) -> dict[str, Tensor]:
    """The same of the rows at hand, as far as this holder goes: the shares of all holders add up to the squares.

    extra: further measures of the interior term, of terms.EXTRA_MEASURES.
    """
    _check_fields(pde, window, fields_BCyX)
    with float32_island(fields_BCyX.device):
        terms = pde.residual(window, fields_BCyX, params_BP)
        shares = {"dual": pde.dual_square(terms["interior"], window)}
        for name, label in (("interior", "l2"), ("boundary", "boundary")):
            if name in terms:
                shares[label] = terms[name].share()
            else:  # the operators hold the boundary: nothing can break it
                shares[label] = fields_BCyX.new_zeros(len(fields_BCyX))
        shares |= {name: EXTRA_MEASURES[name](terms["interior"], window) for name in extra}
    return shares


def check_measures(pde: Pde, grid: Grid, extra: Collection[str]) -> None:
    """Raise UserError where further measures are asked for that an equation has not."""
    if "initial" not in extra:
        return
    fields = torch.zeros(1, len(pde.channels), *grid.shape, dtype=torch.float32)
    if not pde.residual(Window(grid), fields, draw_params(pde, 0, "check", [0]))["interior"].intervals:
        raise UserError(f"distill.weights.initial: {pde.name} is steady, without a first interval of time; set it to 0")


@kept(64)
def _takes(pde: Pde, points: int) -> tuple[int, str, str]:
    """Channels, and kind and boundary of the grid of so many points, that the residual of an equation takes."""
    grid = pde.grid(points)
    return len(pde.channels), grid.kind, grid.boundary


def _check_fields(pde: Pde, window: Window, fields: Tensor) -> None:
    """Raise UserError for fields or a grid that a residual would take without a word and measure wrongly."""
    grid, rows = window.grid, window.rows
    if window.holders > 1 and not pde.splits:
        raise UserError(f"{pde.name}: its residual takes whole fields only; set cluster.space=1")
    expected = (rows.stop - rows.start, grid.shape[1])
    channels, kind, boundary = _takes(pde, max(grid.shape))
    if (grid.kind, grid.boundary) != (kind, boundary):
        raise UserError(
            f"{pde.name}: its residual is measured on {kind} points with {boundary} edges, not on {grid.kind} points with "
            f"{grid.boundary} edges; take a grid from pde.grid(points)"
        )
    is_tensor = isinstance(fields, Tensor)
    fits = is_tensor and fields.dtype in (torch.float32, torch.float64) and fields.shape[1:] == (channels, *expected)
    if not fits or not len(fields):
        found = f"{fields.dtype} {list(fields.shape)}" if is_tensor else type(fields).__name__
        wanted = ", ".join(map(str, ("B", channels, *expected)))
        raise UserError(
            f"{pde.name}: its residual takes physical fields [{wanted}], B >= 1, as a float32 or float64 tensor, not {found}"
        )


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
            raise UserError(f"pde.params.{key}={values[key]}: expected {exact(least)} to {exact(most)}")


def check_span(values: Mapping[str, Any], name: str) -> None:
    """Raise UserError unless NAME_low is at most NAME_high."""
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    if low > high:
        raise UserError(f"pde.params.{name}_low={exact(low)}, {name}_high={exact(high)}: expected low <= high")
