"""Parameters of equations: checked where they are read, drawn where they vary from sample to sample, scaled for a network.

Knows no equation, no files and no ranks. Shapes: params_BP one column for each parameter of `varying`, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import sheltered
from pidscale.config import UserError, exact
from pidscale.pde.base import Pde

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Params = TypeVar("Params", bound="DataclassInstance")
SLACK = 1e-6  # share of a range by which a parameter may lie outside it: the float32 values of its ends do


def read_params(
    name: str, kind: type[Params], given: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]
) -> Params:
    """Return the parameters of an equation from plain values, checked by `check_params` and `check_ranges`.

    Args:
        name: Name of the equation, for messages.
        kind: Dataclass of the parameters, all of which have defaults.
        given: Values that replace defaults.
        ranges: Smallest and largest value of each parameter that has a range.

    Returns:
        An instance of `kind`.
    """
    values = check_params(name, asdict(kind()), given)
    check_ranges(values, ranges)
    return kind(**values)


def check_params(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults updated by the given parameters.

    Args:
        name: Name of the equation, for messages.
        defaults: Value of every parameter; a given value has the same type.
        given: Values that replace defaults.

    Returns:
        Values by name, one for each default.

    Raises:
        UserError: When a parameter is unknown or has another type than its default.
    """
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
    """Check parameters against their ranges, both ends included.

    Args:
        values: Parameters by name.
        ranges: Smallest and largest value of each parameter that has a range.

    Raises:
        UserError: When a parameter is out of range; the first one is named.
    """
    for key, (least, most) in ranges.items():
        if not least <= values[key] <= most:
            raise UserError(f"pde.params.{key}={values[key]}: expected {exact(least)} to {exact(most)}")


def check_span(values: Mapping[str, Any], name: str) -> None:
    """Check that a range given by two parameters is not reversed.

    Args:
        values: Parameters by name, `NAME_low` and `NAME_high` among them.
        name: NAME of the two.

    Raises:
        UserError: When `NAME_low` is above `NAME_high`.
    """
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    if low > high:
        raise UserError(f"pde.params.{name}_low={exact(low)}, {name}_high={exact(high)}: expected low <= high")


@sheltered
def draw_params(pde: Pde, seed: int, stream: str, counters: Sequence[int] | Tensor) -> Tensor:
    """Draw the varying parameters of samples, uniform in their ranges.

    Args:
        pde: The equation.
        seed: Seed of the run or set.
        stream: Name of the random stream of the samples; parameters are drawn from `STREAM/params`.
        counters: Number of each sample in the stream, B of them.

    Returns:
        Parameters, float64 [B, P], each row a function of seed, stream and its counter.
    """
    if not pde.varying:
        return torch.zeros(len(counters), 0, dtype=torch.float64)
    low, high = torch.tensor(list(pde.varying.values()), dtype=torch.float64).T
    return low + (high - low) * seeds.uniform(
        seed, f"{stream}/params", torch.as_tensor(counters, device="cpu"), len(low)
    )


def condition(pde: Pde, params_BP: Tensor) -> Tensor:
    """Return the varying parameters as the network is conditioned on them, float32 [B, P]: each range scaled to [-1, 1]."""
    middle, half = _ranges(pde, params_BP)
    return ((params_BP - middle) / torch.where(half > 0, half, torch.ones_like(half))).float()


def params_of(pde: Pde, condition_BP: Tensor) -> Tensor:
    """Return the varying parameters of conditions [B, P], the inverse of `condition`."""
    middle, half = _ranges(pde, condition_BP)
    return middle + half * condition_BP


def _ranges(pde: Pde, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return middle and half width [P] of the ranges of the varying parameters, as `like` is in dtype and device."""
    ranges = torch.tensor(list(pde.varying.values()), dtype=like.dtype, device=like.device).reshape(-1, 2)
    return ranges.mean(dim=1), (ranges[:, 1] - ranges[:, 0]) / 2


def given_params(pde: Pde, fields_BCYX: Tensor, params_BP: Tensor | None) -> Tensor:
    """Return the varying parameters in the dtype and on the device of the fields.

    Args:
        pde: The equation.
        fields_BCYX: Fields that the parameters belong to.
        params_BP: Parameters of each sample; None is allowed where none varies.

    Returns:
        Parameters [B, P].

    Raises:
        UserError: When the parameters of a sample are missing.
    """
    count = fields_BCYX.shape[0]  # len() would fix it where a tracer leaves it open
    if params_BP is None and not pde.varying:
        return fields_BCYX.new_zeros(count, 0)
    if params_BP is None or params_BP.shape != (count, len(pde.varying)):
        found = "none" if params_BP is None else f"shape {tuple(params_BP.shape)}"
        raise UserError(
            f"{pde.name}: {', '.join(pde.varying)} vary from sample to sample: expected {count} x "
            f"{len(pde.varying)} values with the fields, got {found}"
        )
    return params_BP.to(fields_BCYX.dtype).to(fields_BCYX.device)  # in this order: some devices have no float64
