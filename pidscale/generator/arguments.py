"""What a user hands to a generator: numbers, arrays, parameters and a device, checked before anything is computed.

Every mistake is one line that names the argument. Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidscale.config import UserError, exact
from pidscale.pde.base import Pde
from pidscale.pde.parameters import SLACK
from pidscale.precision import float32_or_better


def as_int(name: str, value: Any, least: int, most: float = math.inf) -> int:
    """The value as a whole number. Raises UserError where it is none, too small or too large."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UserError(f"{name}={value!r}: expected a whole number, {least} or more")
    if number > most:
        raise UserError(f"{name}={value!r}: expected {most} or fewer")
    return number


def amount(name: str, value: Any, zero: bool = False) -> float:
    """The value as a finite number above 0, or 0 where that is allowed. Raises UserError."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
        value = value.item()
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    number = float(value) if is_number else math.nan
    if not (0 < number < math.inf or (zero and number == 0)):
        raise UserError(f"{name}={value!r}: expected a finite number {'of 0 or more' if zero else 'above 0'}")
    return number


def real(name: str, values: Any) -> Tensor:
    """An array or tensor of real numbers as float32, or float64 where it is that. Raises UserError."""
    if not isinstance(values, Tensor):
        if np.ma.is_masked(values):
            raise UserError(f"{name}: a masked array; give values.filled(nan), or values.data beside mask=~values.mask")
        try:
            array = np.asarray(values)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"dtype {array.dtype}")
            # torch takes neither negative strides nor another byte order
            values = torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}: not an array of real numbers ({error})") from None
    if values.is_complex() or values.is_quantized or values.layout != torch.strided or values.is_meta:
        raise UserError(
            f"{name}: not an array of real numbers (dtype {values.dtype}, {values.layout}, {values.device})"
        )
    return float32_or_better(values)


def device_of(device: str | torch.device) -> torch.device:
    """The device of this name. Raises UserError where there is none."""
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda", "xpu"):  # noise is drawn in float64, which mps has not
            raise RuntimeError(f"no fields live on {chosen}")
    except (RuntimeError, TypeError):
        raise UserError(f"device={device!r}: expected something like 'cpu', 'cuda' or 'cuda:1'") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    if (chosen.index or 0) >= there[chosen.type]:
        raise UserError(f"device={str(device)!r}: this torch sees no such GPU; use device='cpu'")
    return chosen


def _column(pde: Pde, name: str, label: str, values: Any, count: int) -> Tensor:
    """Values of one varying parameter, float64 [count], from one number or as many as there are samples."""
    low, high = pde.varying[name]
    found = torch.atleast_1d(real(label, values).detach().double().cpu())
    slack = SLACK * max(abs(low), abs(high))
    if found.shape not in ((1,), (count,)) or not bool(((low - slack <= found) & (found <= high + slack)).all()):
        wrong = f"shape {list(found.shape)}" if found.shape not in ((1,), (count,)) else exact(_wrong(found, low, high))
        raise UserError(
            f"{label}: {wrong}; expected a number or {count} of them, each from {exact(low)} to {exact(high)} as in training"
        )
    return found.clamp(low, high).expand(count)


def _wrong(found: Tensor, low: float, high: float) -> float:
    """The first value that is outside its range, or not a number."""
    return float(found[~((low <= found) & (found <= high))][0])


def chosen(pde: Pde, drawn_NP: Tensor, given: Mapping[str, Any] | None) -> Tensor:
    """The drawn parameters [n, P], those that a user gives in their place. Raises UserError that names the parameter."""
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"params: a {type(given).__name__}, expected a dict of parameter name to numbers")
    params = drawn_NP.clone()
    for name, values in (given or {}).items():
        if name not in pde.varying:
            known = ", ".join(pde.varying) or "none"
            raise UserError(f"params[{name!r}]: no parameter that varies from sample to sample; there are: {known}")
        params[:, list(pde.varying).index(name)] = _column(pde, name, f"params[{name!r}]", values, len(params))
    return params


def beside(pde: Pde, fields: Mapping[str, Any], count: int) -> Tensor:
    """The parameters [n, P] that stand beside the channels. Raises UserError that names a missing one."""
    columns = []
    for name in pde.varying:
        if name not in fields:
            raise UserError(f"fields: {name!r} is missing: each sample has its own {', '.join(pde.varying)}")
        columns.append(_column(pde, name, f"fields[{name!r}]", fields[name], count))
    return torch.stack(columns, dim=1) if columns else torch.zeros(count, 0, dtype=torch.float32)
