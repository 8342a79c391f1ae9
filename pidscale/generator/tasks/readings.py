"""Readings that are not values at grid points: values between them, means over boxes, slopes, any linear function of a field.

A task takes them beside known values. Its misfit has (H x - y)^2 / sigma^2 for each reading y, where H is linear. Gradients
are those of H transposed, by automatic differentiation. Knows no files and no networks.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.config import UserError, exact
from pidscale.generator.arguments import as_real
from pidscale.generator.generator import Generator
from pidscale.ops.grid import Grid
from pidscale.ops.interpolate import mean_weights, slope_weights

# sigma of noiseless values in standard deviations of a channel, as near as students come to some values
TOLERANCE_OF_SOME = 0.01
LINEAR = 1e-4  # relative distance to a linear function above which a function is refused


@dataclass(frozen=True)
class Separable:
    """Readings of one channel whose weights are products of weights of the axes.

    Attributes:
        channel: Number of the channel.
        y_MY: Weights along y.
        x_MX: Weights along x.
    """

    channel: int
    y_MY: Tensor
    x_MX: Tensor

    def __call__(self, fields_bCYX: Tensor) -> Tensor:
        """Return the readings [b, M] of physical fields."""
        y, x = (weights.to(fields_bCYX) for weights in (self.y_MY, self.x_MX))
        return ((fields_bCYX[:, self.channel] @ x.T) * y.T).sum(dim=1)

    def on(self, device: torch.device) -> Separable:
        """Return the same with its weights on a device."""
        return Separable(self.channel, self.y_MY.to(device), self.x_MX.to(device))


@dataclass(frozen=True)
class Readings:
    """M readings of each of N fields.

    Attributes:
        read: The linear function, from physical fields [b, C, Y, X] to readings [b, M].
        values_NM: Readings in their own unit; 0 where one is missing.
        known_NM: Whether there is a reading, bool.
        sigma_NM: Standard deviation of their noise.
        channel: Name of the channel that they are values or means of; empty for others.
    """

    read: Callable[[Tensor], Tensor]
    values_NM: Tensor
    known_NM: Tensor
    sigma_NM: Tensor
    channel: str = ""

    def __len__(self) -> int:
        return len(self.values_NM)

    def on(self, device: torch.device) -> Readings:
        """Return the readings on a device."""
        moved = self._changed(lambda t: t.to(device))
        return replace(moved, read=self.read.on(device)) if isinstance(self.read, Separable) else moved

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Readings:
        values, known, sigma = map(change, (self.values_NM, self.known_NM, self.sigma_NM))
        return replace(self, values_NM=values, known_NM=known, sigma_NM=sigma)

    def __getitem__(self, some: slice) -> Readings:
        return self._changed(lambda t: t[some])

    def expanded(self, count: int) -> Readings:
        """Return the readings of one field as those of `count` fields."""
        return self._changed(lambda t: t.expand(count, -1))

    def misfit(self, fields_bCYX: Tensor, owners_b: Tensor, noise_bM: Tensor | None = None) -> Tensor:
        """Return the sum of ((reading of the field - reading) / sigma)^2 of each field, differentiable.

        Args:
            fields_bCYX: Physical fields.
            owners_b: Number of the observation of each field.
            noise_bM: Noise that is added to the readings, in units of sigma; None for none.

        Returns:
            Sums [b].
        """
        away = (self.read(fields_bCYX) - self.values_NM[owners_b]) / self.sigma_NM[owners_b]
        away = away if noise_bM is None else away - noise_bM
        return torch.where(self.known_NM[owners_b], away, 0.0).square().sum(dim=1)


@sheltered
def points(generator: Generator, channel: str, places: Any, values: Any, sigma: Any = None) -> Readings:
    """Return readings of a channel at places between grid points, by linear interpolation.

    Args:
        generator: A generator of the equation.
        channel: Name of the channel.
        places: Coordinates (y, x) of M sensors, [M, 2], from 0 to the grid's extent.
        values: Readings [M] or [n, M] in physical units; NaN where one is missing.
        sigma: Standard deviation of their noise, one number, [M] or [n, M]; None for 1 % of the channel's standard deviation.

    Returns:
        The readings. A wrong channel, place, value or sigma raises a UserError.
    """
    placed = _places(generator.grid, "places", places, 2)
    return _of_channel(generator, channel, placed[:, [0, 0, 1, 1]], values, sigma)


@sheltered
def means(generator: Generator, channel: str, boxes: Any, values: Any, sigma: Any = None) -> Readings:
    """Return readings that are means of a channel over boxes or lines.

    Args:
        generator: A generator of the equation.
        channel: Name of the channel.
        boxes: Coordinates (y from, y to, x from, x to) of M boxes, [M, 4]; a box of no height or width is a line.
        values: As in `points`.
        sigma: As in `points`.

    Returns:
        The readings.

    Raises:
        UserError: When an argument is wrong, as in `points`, or a box ends before it begins.
    """
    placed = _places(generator.grid, "boxes", boxes, 4)
    for number, (y0, y1, x0, x1) in enumerate(placed.tolist()):
        if y1 < y0 or x1 < x0:
            raise UserError(
                f"boxes[{number}]={[y0, y1, x0, x1]}: ends before it begins; expected y from, y to, x from, x to"
            )
    return _of_channel(generator, channel, placed, values, sigma)


@sheltered
def slopes(generator: Generator, channel: str, places: Any, axis: str, values: Any, sigma: Any) -> Readings:
    """Return readings that are derivatives of a channel along an axis, taken over one grid spacing.

    Args:
        generator: A generator of the equation.
        channel: Name of the channel.
        places: As in `points`.
        axis: `y` or `x`.
        values: As in `points`, in the channel's unit over that of the extent.
        sigma: As in `points`, but not None.

    Returns:
        The readings.

    Raises:
        UserError: When an argument is wrong.
    """
    check_channel(generator, channel, "readings")
    if axis not in ("y", "x"):
        raise UserError(f"axis={axis!r}: expected 'y' or 'x'")
    placed = _places(generator.grid, "places", places, 2)
    weights = [mean_weights(generator.grid, dim, placed[:, dim], placed[:, dim]) for dim in (0, 1)]
    dim = "yx".index(axis)
    weights[dim] = slope_weights(generator.grid, dim, placed[:, dim])
    read = Separable(generator.channels.index(channel), *weights)
    return _readings(read, len(placed), values, sigma)


@sheltered
def linear(generator: Generator, function: Callable[[Tensor], Tensor], values: Any, sigma: Any) -> Readings:
    """Return readings by a linear function of one's own. It is tried on two fields.

    Args:
        generator: A generator of the equation.
        function: From physical fields [b, C, Y, X] to readings [b, M]; differentiable by torch.
        values: As in `points`.
        sigma: As in `points`, but not None.

    Returns:
        The readings.

    Raises:
        UserError: When the function is not linear, or makes readings of another shape than the values have.
    """
    draws = torch.Generator().manual_seed(0)
    tried = torch.randn(2, len(generator.channels), *generator.grid.shape, generator=draws, dtype=torch.float32)
    mean, std = (
        torch.tensor(one).reshape(1, -1, 1, 1) for one in (generator.normaliser.mean, generator.normaliser.std)
    )
    a, b = (mean + std * tried).split(1)
    found = function(torch.cat([a, b, 0.5 * a - 2.0 * b]))
    count = as_real("values", values).shape[-1] if as_real("values", values).ndim else 0
    if not isinstance(found, Tensor) or tuple(found.shape) != (3, count):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"function: made {shape} of fields [3, C, Y, X], expected [3, {count}], as many as there are values"
        )
    away = (found[2] - 0.5 * found[0] + 2.0 * found[1]).abs().max()
    if not float(away) <= LINEAR * float(found.abs().max()):
        raise UserError("function: not linear: f(a / 2 - 2 b) differs from f(a) / 2 - 2 f(b)")
    return _readings(function, count, values, sigma)


def check_channel(generator: Generator, name: Any, where: str) -> None:
    """Check that a name is a channel of the generator's equation.

    Args:
        generator: The generator.
        name: The name.
        where: Name of its source in messages.

    Raises:
        UserError: When there is no such channel.
    """
    if name not in generator.channels:
        close = difflib.get_close_matches(str(name)[:80], generator.channels, n=1)
        advice = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"{where}: no channel {str(name)[:80]!r} in {generator.pde.name}, the student's equation; {advice}it has "
            f"{', '.join(generator.channels)}"
        )


def _of_channel(generator: Generator, channel: str, boxes_M4: Tensor, values: Any, sigma: Any) -> Readings:
    """Return readings that are means over boxes, which may be points."""
    check_channel(generator, channel, "readings")
    c = generator.channels.index(channel)
    weights = [mean_weights(generator.grid, dim, boxes_M4[:, 2 * dim], boxes_M4[:, 2 * dim + 1]) for dim in (0, 1)]
    usual = TOLERANCE_OF_SOME * generator.normaliser.std[c]
    read = Separable(c, *weights)
    made = _readings(read, len(boxes_M4), values, usual if sigma is None else sigma)
    return replace(made, channel=channel)


def _places(grid: Grid, name: str, places: Any, count: int) -> Tensor:
    """Return places [M, count], float64 and checked: coordinates of y, then as many of x."""
    found = as_real(name, places).double().cpu()
    if found.ndim != 2 or found.shape[1] != count or not len(found):
        raise UserError(f"{name}: shape {list(found.shape)}, expected [M, {count}] with M of 1 or more")
    for number, row in enumerate(found.tolist()):
        for column, place in enumerate(row):
            dim = column // (count // 2)
            if not 0 <= place <= grid.extent[dim]:
                raise UserError(
                    f"{name}[{number}]: {'yx'[dim]}={exact(place)}: outside the grid, which goes from 0 to "
                    f"{exact(grid.extent[dim])}"
                )
    return found


def _readings(read: Callable[[Tensor], Tensor], count: int, values: Any, sigma: Any) -> Readings:
    """Return readings with their values and noise, checked."""
    given = as_real("values", values).float().cpu()
    given = given[None] if given.ndim == 1 else given
    if given.ndim != 2 or given.shape[1] != count:
        raise UserError(f"values: shape {list(given.shape)}, expected [{count}] or [n, {count}], one for each reading")
    known = ~given.isnan()
    if not known.any(dim=1).all():
        raise UserError(f"values: field {int((~known.any(dim=1)).nonzero()[0])} has no reading: all values are NaN")
    if given.isinf().any():
        raise UserError("values: infinite; give a finite number, or NaN where a reading is missing")
    spread = as_real("sigma", sigma).float().cpu()
    try:
        spread = spread.expand(given.shape)
    except RuntimeError:
        raise UserError(
            f"sigma: shape {list(spread.shape)}, expected one number, [{count}] or {list(given.shape)}"
        ) from None
    if not bool((spread[known] > 0).all() and spread[known].isfinite().all()):
        raise UserError("sigma: expected finite numbers above 0, the standard deviations of the noise")
    return Readings(read, torch.where(known, given, 0.0), known, torch.where(known, spread, 1.0))
