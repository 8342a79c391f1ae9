"""Residuals of any equation: squared norms of samples, shares of them on a window, and statistics of sets.

The entry points through which the rest of the system measures a residual. All of them raise UserError where fields or grid do
not belong to the equation, or varying parameters are missing. Knows no equation, no files and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pidscale.caller import exactly, kept, sheltered
from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Pde
from pidscale.pde.parameters import draw_params
from pidscale.pde.terms import EXTRA_MEASURES, NORMS
from pidscale.precision import float32_island


@sheltered
def residual_squares(pde: Pde, grid: Grid, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Tensor]:
    """Return the squared relative residuals of samples; 1 is the equation's own scale.

    Runs in the dtype of the fields, outside autocast. Differentiable.

    Args:
        pde: The equation.
        grid: Grid of the fields.
        fields_BCYX: Joint physical fields, float32 or float64 [B, C, Y, X].
        params_BP: Varying parameters of each sample [B, P].

    Returns:
        By name, each [B]: `l2` and `dual` of the interior term, and `boundary`.
    """
    return residual_shares(pde, Window(grid), fields_BCYX, params_BP)


def residual_shares(
    pde: Pde, window: Window, fields_BCyX: Tensor, params_BP: Tensor | None = None, extra: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return what the rows at hand contribute to the squared relative residuals of samples.

    The shares of all windows of a field add up to what `residual_squares` returns.

    Args:
        pde: The equation.
        window: The rows at hand and the way to ask for the others.
        fields_BCyX: Joint physical fields, float32 or float64, the rows at hand.
        params_BP: Varying parameters of each sample [B, P].
        extra: Names of further measures of the interior term, of `terms.EXTRA_MEASURES`.

    Returns:
        Shares by name, each [B]: `l2`, `dual`, `boundary` and the measures of `extra`.
    """
    check_fields(pde, window, fields_BCyX)
    with float32_island(fields_BCyX.device):
        terms = pde.residual(window, fields_BCyX, params_BP)
        shares = {"dual": pde.dual_square(terms["interior"], window)}
        for name, label in (("interior", "l2"), ("boundary", "boundary")):
            if name in terms:
                shares[label] = terms[name].share()
            else:  # the operators hold the boundary: no field can violate it
                shares[label] = fields_BCyX.new_zeros(len(fields_BCyX))
        shares |= {name: EXTRA_MEASURES[name](terms["interior"], window) for name in extra}
    return shares


def absolute_shares(pde: Pde, window: Window, fields_BCyX: Tensor, params_BP: Tensor | None = None) -> Tensor:
    """Return what the rows at hand contribute to the mean absolute residual of samples, interior plus boundary.

    Args:
        pde: The equation.
        window: The rows at hand and the way to ask for the others.
        fields_BCyX: Joint physical fields, float32 or float64, the rows at hand.
        params_BP: Varying parameters of each sample [B, P].

    Returns:
        Shares relative to the equation's own scale, [B].
    """
    check_fields(pde, window, fields_BCyX)
    with float32_island(fields_BCyX.device):
        terms = pde.residual(window, fields_BCyX, params_BP)
        parts = [terms[name].absolute_share() for name in ("interior", "boundary") if name in terms]
    return torch.stack(parts).sum(dim=0)


@exactly
def residual_rms(
    pde: Pde, grid: Grid, physical_NCYX: Tensor, params_NP: Tensor | None = None, chunk: int = 256
) -> dict[str, float]:
    """Return the root mean square of the relative residuals over a set of samples.

    Args:
        pde: The equation.
        grid: Grid of the fields.
        physical_NCYX: Joint physical fields of the set.
        params_NP: Varying parameters of each sample.
        chunk: Number of samples whose residual is taken at once.

    Returns:
        Root mean square by norm, of `terms.NORMS`.
    """
    sums = dict.fromkeys(NORMS, 0.0)
    for start in range(0, len(physical_NCYX), chunk):
        part = slice(start, start + chunk)
        params = None if params_NP is None else params_NP[part]
        for name, squares in residual_squares(pde, grid, physical_NCYX[part], params).items():
            sums[name] += float(squares.double().sum())
    return {name: math.sqrt(total / len(physical_NCYX)) for name, total in sums.items()}


@exactly
def residual_mean_abs(
    pde: Pde, grid: Grid, physical_NCYX: Tensor, params_NP: Tensor | None = None, chunk: int = 256
) -> float:
    """Return the mean absolute value of the interior residual over a set, relative to the equation's own scale.

    Args:
        pde: The equation.
        grid: Grid of the fields.
        physical_NCYX: Joint physical fields of the set.
        params_NP: Varying parameters of each sample.
        chunk: Number of samples whose residual is taken at once.

    Returns:
        Mean over samples and points. A few large values count for less in it than in `residual_rms`.
    """
    window = Window(grid)
    total = 0.0
    for start in range(0, len(physical_NCYX), chunk):
        part = slice(start, start + chunk)
        check_fields(pde, window, physical_NCYX[part])
        term = pde.residual(window, physical_NCYX[part], None if params_NP is None else params_NP[part])["interior"]
        total += float(replace(term, values=term.values.double()).absolute_share().sum())
    return total / len(physical_NCYX)


def truth_residuals(pde: Pde, grid: Grid, fields: np.ndarray, params: np.ndarray) -> dict[str, np.ndarray]:
    """Return the relative residuals of stored samples: of truths, the floor of any residual.

    Args:
        pde: The equation.
        grid: Grid of the fields.
        fields: Joint physical fields [B, C, Y, X], float32 as they are stored, or float64.
        params: Varying parameters of each sample [B, P].

    Returns:
        Residuals by norm, float64 [B] each.
    """
    with torch.no_grad():
        squares = residual_squares(pde, grid, torch.from_numpy(fields), torch.from_numpy(params))
    return {name: np.sqrt(square.double().numpy()) for name, square in sorted(squares.items())}


def floor_of(residuals: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the root mean square of each norm over all samples and, as `max_NORM`, the largest value."""
    floor: dict[str, float] = {}
    for name, each in residuals.items():
        values = np.array(each)
        floor |= {name: float(np.sqrt(np.mean(values**2))), f"max_{name}": float(values.max())}
    return floor


def check_measures(pde: Pde, grid: Grid, extra: Collection[str]) -> None:
    """Check that an equation has the extra measures of its residual that weights are given for.

    Args:
        pde: The equation.
        grid: Grid of its fields.
        extra: Names of the measures, of `terms.EXTRA_MEASURES`.

    Raises:
        UserError: When `initial` is asked of a steady equation.
    """
    if "initial" not in extra:
        return
    fields = torch.zeros(1, len(pde.channels), *grid.shape, dtype=torch.float32)
    if not pde.residual(Window(grid), fields, draw_params(pde, 0, "check", [0]))["interior"].intervals:
        raise UserError(f"distill.weights.initial: {pde.name} is steady and has no first interval of time; set it to 0")


@kept(64)
def _expected(pde: Pde, points: int) -> tuple[int, str, str]:
    """Return the number of channels, and kind and boundary of the grid of `points`, that the residual takes."""
    grid = pde.grid(points)
    return len(pde.channels), grid.kind, grid.boundary


def check_fields(pde: Pde, window: Window, fields: Tensor) -> None:
    """Check fields and grid, which a residual would accept silently and measure wrongly.

    Args:
        pde: The equation.
        window: The rows at hand, on the grid of the fields.
        fields: Joint physical fields, the rows at hand.

    Raises:
        UserError: When they are not those of the equation.
    """
    grid = window.grid
    rows = window.rows
    if window.holders > 1 and not pde.splits:
        raise UserError(f"{pde.name}: its residual takes whole fields only; set cluster.space=1")
    channels, kind, boundary = _expected(pde, max(grid.shape))
    if (grid.kind, grid.boundary) != (kind, boundary):
        raise UserError(
            f"{pde.name}: its residual is measured on {kind} points with {boundary} edges, not on {grid.kind} points with "
            f"{grid.boundary} edges; take a grid from pde.grid(points)"
        )
    shape = (channels, rows.stop - rows.start, grid.shape[1])
    is_tensor = isinstance(fields, Tensor)
    fits = is_tensor and fields.dtype in (torch.float32, torch.float64) and fields.shape[1:] == shape
    if not fits or fields.shape[0] == 0:
        found = f"{fields.dtype} {list(fields.shape)}" if is_tensor else type(fields).__name__
        wanted = ", ".join(map(str, ("B", *shape)))
        raise UserError(
            f"{pde.name}: its residual takes physical fields [{wanted}], B >= 1, as a float32 or float64 tensor, not {found}"
        )
