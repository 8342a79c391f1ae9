"""Arguments of a generator's methods, checked before anything is computed: numbers, arrays, parameters and a device.

Every error is one line that names the argument. Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidscale.config import UserError, exact
from pidscale.pde.base import Pde
from pidscale.pde.parameters import SLACK
from pidscale.plain import shown
from pidscale.precision import float32_or_better

Progress = Callable[[int, int, str], None]
"""Called with the number of evaluations done, the largest number that there may be, and a note."""

LARGEST_COUNT = 2**40  # samples of one call; the next are of another seed
LARGEST_AMOUNT = 1e30  # as the bound of a learning rate (config.py)


def as_int(name: str, value: Any, least: int, most: float = math.inf) -> int:
    """Return an argument as a whole number.

    Args:
        name: Name of the argument, for messages.
        value: Its value.
        least: Lower bound.
        most: Upper bound.

    Returns:
        The number.

    Raises:
        UserError: When the value is not a whole number, or out of bounds.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most or isinstance(value, bool):
        wanted = f"a whole number, {least} or more" if most == math.inf else f"a whole number from {least} to {most}"
        raise UserError(f"{name}={shown(value)}: expected {wanted}")
    return number


def as_amount(name: str, value: Any, zero: bool = False) -> float:
    """Return an argument as a number above 0 that float32 holds with room for sums and squares of Adam's step.

    Args:
        name: Name of the argument, for messages.
        value: Its value: a number, or an array or tensor of no dims.
        zero: Whether 0 is allowed.

    Returns:
        The number.

    Raises:
        UserError: When the value is no such number.
    """
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
        value = value.item()
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:  # a whole number beyond float64
        number = math.inf
    if not (0 < number < math.inf or (zero and number == 0)):
        raise UserError(f"{name}={shown(value)}: expected a finite number {'of 0 or more' if zero else 'above 0'}")
    if number > LARGEST_AMOUNT:
        raise UserError(f"{name}={value!r}: expected a number of {LARGEST_AMOUNT:g} or less; fields are in float32")
    return number


def as_real(name: str, values: Any) -> Tensor:
    """Return an argument as a tensor of real numbers: float64 if it has that dtype, else float32.

    Args:
        name: Name of the argument, for messages.
        values: An array, a tensor or nested lists.

    Returns:
        The tensor, of the same shape.

    Raises:
        UserError: When the values are no array of real numbers, or a masked array.
    """
    if not isinstance(values, Tensor):
        if np.ma.is_masked(values):
            raise UserError(f"{name}: a masked array; give values.filled(nan), or values.data beside mask=~values.mask")
        try:
            array = np.asarray(values)
            is_real = array.dtype.kind in "fiub"
            if is_real:  # torch takes neither negative strides nor another byte order
                values = torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}: not an array of real numbers ({error})") from None
        if not is_real:
            raise UserError(f"{name}: not an array of real numbers (dtype {array.dtype})")
    if values.is_complex() or values.is_quantized or values.layout != torch.strided or values.is_meta:
        raise UserError(
            f"{name}: not an array of real numbers (dtype {values.dtype}, {values.layout}, {values.device})"
        )
    return float32_or_better(values)


def as_device(device: str | torch.device) -> torch.device:
    """Return the device of a name.

    Args:
        device: A name such as "cpu" or "cuda:1", or a device.

    Returns:
        The device.

    Raises:
        UserError: When there is no such device, or fields cannot be computed on it.
    """
    chosen = None
    with suppress(RuntimeError, TypeError):
        chosen = torch.device(device)
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    if chosen is None or chosen.type not in available:  # not on mps: noise is drawn in float64
        raise UserError(f"device={device!r}: expected something like 'cpu', 'cuda' or 'cuda:1'")
    if (chosen.index or 0) >= available[chosen.type]:
        raise UserError(f"device={str(device)!r}: torch finds no such GPU; use device='cpu'")
    return chosen


def override_params(pde: Pde, drawn_NP: Tensor, given: Mapping[str, Any] | None) -> Tensor:
    """Replace drawn parameters by those that a user gives.

    Args:
        pde: The equation.
        drawn_NP: Varying parameters as drawn.
        given: Values by name, one number for all samples or one for each [N]; None for no replacement.

    Returns:
        Varying parameters [N, P].

    Raises:
        UserError: When a name is unknown, or values have a wrong shape or lie outside the range of training.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"params: a {type(given).__name__}, expected a dict of parameter name to numbers")
    params = drawn_NP.clone()
    for name, values in (given or {}).items():
        if name not in pde.varying:
            known = ", ".join(pde.varying) or "none"
            raise UserError(f"params[{name!r}]: {pde.name} has no such varying parameter; it has: {known}")
        params[:, list(pde.varying).index(name)] = _column(pde, name, f"params[{name!r}]", values, len(params))
    return params


def params_beside(pde: Pde, fields: Mapping[str, Any], count: int) -> Tensor:
    """Return the varying parameters that are given beside fields, as `sample` returns them.

    Args:
        pde: The equation.
        fields: Values by name of channel or parameter.
        count: Number of samples.

    Returns:
        Varying parameters [N, P].

    Raises:
        UserError: When one is missing, or has a wrong shape or values outside the range of training.
    """
    columns = []
    for name in pde.varying:
        if name not in fields:
            raise UserError(f"fields: {name!r} is missing: each sample has its own {', '.join(pde.varying)}")
        columns.append(_column(pde, name, f"fields[{name!r}]", fields[name], count))
    return torch.stack(columns, dim=1) if columns else torch.zeros(count, 0, dtype=torch.float32)


def _column(pde: Pde, name: str, label: str, values: Any, count: int) -> Tensor:
    """Return the values of one varying parameter, float64 [count], from one number or `count` numbers."""
    low, high = pde.varying[name]
    found = torch.atleast_1d(as_real(label, values).detach().double().cpu())
    slack = SLACK * max(abs(low), abs(high))
    fits = found.shape in ((1,), (count,))
    if not fits or not bool(((low - slack <= found) & (found <= high + slack)).all()):
        wrong = exact(_first_outside(found, low, high)) if fits else f"shape {list(found.shape)}"
        raise UserError(
            f"{label}: {wrong}; expected a number or {count} of them, each from {exact(low)} to {exact(high)} as in training"
        )
    return found.clamp(low, high).expand(count)


def _first_outside(found: Tensor, low: float, high: float) -> float:
    """Return the first value that is outside its range or not a number."""
    return float(found[~((low <= found) & (found <= high))][0])


def check_found(name: str, found: Mapping[str, Tensor], channels: Sequence[str], shape: tuple[int, ...]) -> None:
    """Refuse fields that another generator has found.

    Args:
        name: Name of the argument that has them, for the message.
        found: Fields [n, Y, X] and parameters by name.
        channels: Names of the channels of this generator.
        shape: Numbers of points of its grid, (Y, X).

    Raises:
        UserError: When a channel is missing or on another grid.
    """
    for channel in channels:
        if channel not in found or tuple(found[channel].shape[1:]) != shape:
            raise UserError(f"{name}: found by another generator; give the one that was asked")
