"""Parameters of an equation as a file gives them: one value for the set, or one for each sample.

The file and the settings must agree; what neither gives is the equation's default, and the report notes it. Must not know
channels or shards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pidscale.config import UserError, exact
from pidscale.convert.layouts.source import Source
from pidscale.convert.missing import find_marked_numbers
from pidscale.convert.request import ConversionRequest, is_index
from pidscale.pde import build_pde
from pidscale.pde.base import Pde

# Parameters of our own random fields, or found from the fields: a number with such a name in a file means something else.
NEVER_BY_NAME = frozenset(
    {"alpha", "tau", "size", "warm_up", "variant", "low", "high", "frames", "duration", "amplitude"}
)
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "advection_diffusion": {
        "velocity_x": ("b_x", "bx", "vx"),
        "velocity_y": ("b_y", "by", "vy"),
        "diffusivity": ("kappa", "D", "nu"),
    },
    "burgers": {"viscosity": ("visc", "nu")},
    "darcy": {"source": ("beta", "f")},
    "heat": {"diffusivity": ("alpha", "kappa", "D", "nu")},
    "helmholtz": {"wavenumber": ("k",)},
    "navier_stokes": {"viscosity": ("visc", "nu")},
    "reaction_diffusion": {"diffusion_u": ("Du", "D_u"), "diffusion_v": ("Dv", "D_v"), "source": ("k",)},
    "stokes": {"viscosity": ("visc", "nu")},
    "wave": {"speed": ("c",)},
}
CLOSE = 1e-4  # relative difference up to which a file and the settings agree: files store float32


@dataclass(frozen=True)
class Parameters:
    """The parameters that a file and the settings give.

    Attributes:
        fixed: Values of the equation's parameters, by name.
        per_sample: Values [N] of each sample, by name.
        used: Which array of the file gave which parameter, as ARRAY or ARRAY:i.
        lost: The samples without a value of a parameter, and the reason.
    """

    fixed: dict[str, Any]
    per_sample: dict[str, np.ndarray] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)

    def of(self, number: int) -> dict[str, float]:
        """Return the parameters of one sample."""
        return {name: shortest_decimal(values[number]) for name, values in self.per_sample.items()}


def shortest_decimal(value: Any) -> float:
    """Return a number as the shortest decimal that identifies it in its type: 0.01 for a float32 of 0.01."""
    return float(str(np.asarray(value)[()]))


def find_parameters(
    pde: Pde, given: Mapping[str, Any], source: Source, count: int, request: ConversionRequest
) -> Parameters:
    """Match the numbers of a file with the equation's parameters.

    Args:
        pde: The equation with the parameters of the settings.
        given: The parameters that the settings give, by name.
        source: The open file.
        count: The number of samples.
        request: The arguments of the conversion.

    Returns:
        The parameters.

    Raises:
        UserError: The file contradicts the settings, lacks a parameter, or has a missing value that may not be omitted.
    """
    own = [name for name in pde.params_dict() if name not in pde.varying]
    for name in request.parameters:
        if name not in own and name not in pde.varying:
            known = ", ".join([*own, *pde.varying])
            raise UserError(f"parameters.{name}: {pde.name} has no such parameter; it has {known}")
    words = {name: request.parameters.get(name) or _find_scalar(pde, name, source) for name in (*own, *pde.varying)}
    used = {name: word for name, word in words.items() if word is not None}
    fixed = dict(given)
    per_sample: dict[str, np.ndarray] = {}
    for name, word in used.items():
        values = _read_numbers(source, name, word)
        if name in pde.varying:
            per_sample[name] = _for_each_sample(source, word, values, count)
        else:
            fixed[name] = checked_value(
                pde.name, name, _single_value(source, word, name, pde.name, values), given, source
            )
    for name in pde.varying:
        if name not in per_sample:
            raise UserError(
                f"{source.sample_name(0)} has no '{name}', which {pde.name} needs for each sample; the file has "
                f"{', '.join(source.scalars) or 'no numbers'}: set parameters.{name}=ARRAY, an array [N] of the file"
            )
    for other, values in source.scalars.items():  # numbers that the equation does not need are kept with each sample
        if other not in used.values() and other not in per_sample and values.shape == (count,):
            per_sample[other] = values
    lost = _find_lost(source, per_sample, request)
    kept = np.setdiff1d(np.arange(count), list(lost))
    if len(kept):
        _set_ranges(pde, given, source, fixed, per_sample, kept)
    return Parameters(fixed, per_sample, used, lost)


def _read_numbers(source: Source, name: str, word: str) -> np.ndarray:
    """Read the numbers [] or [N] of ARRAY, or those of one column of an array [N, P] as ARRAY:i."""
    array, _, column = word.partition(":")
    if not column and array in source.scalars:
        return source.scalars[array]
    table = source.arrays.get(array)
    if is_index(column) and table is not None and len(table.shape) == 2 and int(column) < table.shape[1]:
        return source.read(table, (slice(None), slice(int(column), int(column) + 1)))[:, 0]
    known = ", ".join(source.scalars) or "none"
    raise UserError(
        f"parameters.{name}={word}: {source.path} has no such number; it has {known}; expected one of these, or ARRAY:i for "
        "a column of an array [N, P]"
    )


def _set_ranges(
    pde: Pde,
    given: Mapping[str, Any],
    source: Source,
    fixed: dict[str, Any],
    per_sample: Mapping[str, np.ndarray],
    kept: np.ndarray,
) -> None:
    """Set the range of each varying parameter to that of the samples `kept`, or check it against the settings."""
    own = pde.params_dict()
    for name in pde.varying:
        stored = per_sample[name][kept]
        values = stored.astype(np.float64)
        low = shortest_decimal(stored.min())
        high = shortest_decimal(stored.max())
        ends = {f"{name}_low": low, f"{name}_high": high}
        if not set(ends) <= set(own):  # a velocity lies between -speed and speed
            ends = {"speed": max(abs(low), abs(high), fixed.get("speed", 0.0))}
        for key, value in ends.items():
            if key not in given:
                fixed[key] = value
                continue
            bound = (
                stored.dtype.type(given[key]) if stored.dtype.kind == "f" else given[key]
            )  # 0.1 includes float32's 0.1
            outside = stored < bound if key.endswith("_low") else abs(values) > bound
            if outside.any():
                number = int(np.argmax(outside))
                raise UserError(
                    f"{source.sample_name(int(kept[number]))} has {name}={exact(shortest_decimal(stored[number]))}, beyond "
                    f"pde.params.{key}={exact(given[key])}; set pde.params.{key}={exact(value)}"
                )


def _never_by_name(pde: Pde) -> frozenset[str]:
    """Return the parameters that a number of a file does not set because of its name alone."""
    ranges = {name for name in pde.params_dict() if name.endswith(("_low", "_high"))}
    return NEVER_BY_NAME | ranges | ({"speed"} if "velocity_x" in pde.varying else set())


def _find_scalar(pde: Pde, name: str, source: Source) -> str | None:
    """Return the scalar of a file with the name or a known alias of a parameter."""
    if name not in _never_by_name(pde) and name in source.scalars:
        return name
    found = [alias for alias in ALIASES.get(pde.name, {}).get(name, ()) if alias in source.scalars]
    if len(found) > 1:
        raise UserError(f"{source.path}: {' and '.join(found)} could be {name}; set parameters.{name}=ARRAY")
    return found[0] if found else None


def _for_each_sample(source: Source, array: str, values: np.ndarray, count: int) -> np.ndarray:
    """Return numbers [] or [N] as [N]."""
    if values.shape not in ((), (count,)):
        raise UserError(
            f"{source.path}: '{array}' has {values.size} values for {count} samples; write one for each sample"
        )
    return np.broadcast_to(values, (count,))


def _single_value(source: Source, array: str, name: str, equation: str, values: np.ndarray) -> float:
    """Return the value that all samples share."""
    low = shortest_decimal(values.min())
    high = shortest_decimal(values.max())
    if abs(high - low) > CLOSE * max(abs(high), abs(low)):
        raise UserError(
            f"{source.path}: '{array}' varies from {exact(low)} to {exact(high)} between samples, but {equation} has one "
            f"{name} for a set; write the samples with one value into a separate file"
        )
    return shortest_decimal(values.reshape(-1)[0])


def checked_value(equation: str, name: str, found: Any, given: Mapping[str, Any], source: Source) -> Any:
    """Return the value of a parameter that a file gives, or that of the settings if both agree.

    Args:
        equation: The name of the equation, for the message.
        name: The name of the parameter.
        found: Its value in the file.
        given: The parameters that the settings give, by name.
        source: The open file, for the message.

    Returns:
        The value.

    Raises:
        UserError: File and settings have different values.
    """
    if name not in given:
        return found
    if not math.isclose(float(given[name]), found, rel_tol=CLOSE):
        raise UserError(
            f"{source.path}: {name} is {exact(found)} in the file, pde.params.{name}={given[name]} in the settings of "
            f"{equation}; set pde.params.{name}={exact(found)}"
        )
    return given[name]


def _find_lost(source: Source, per_sample: Mapping[str, np.ndarray], request: ConversionRequest) -> dict[int, str]:
    """Return the samples with a missing number and the reason. Raises UserError for the first unless bad=omit."""
    lost: dict[int, str] = {}
    for name, values in per_sample.items():
        wrong = ~np.isfinite(values.astype(np.float64))
        if not wrong.any() and values.size > 1 and not request.force:
            wrong = find_marked_numbers(values)
        for number in np.flatnonzero(wrong).tolist():
            value = float(values[number])
            reason = "is missing or not finite"
            if np.isfinite(value):
                reason = f"is {value:g}, a common mark of a missing value, which the file does not declare"
            if request.bad != "omit":
                remedy = ", or set force=true to keep it unchanged" * bool(np.isfinite(value))
                raise UserError(
                    f"{source.sample_name(number)}, '{name}' {reason} ({int(wrong.sum())} of {values.size} are); repair the "
                    f"file, or set bad=omit to omit such samples{remedy}"
                )
            lost[number] = f"'{name}' {reason}"
    return lost


def build_equation(
    pde: Pde, parameters: Parameters, given: Mapping[str, Any], source: Source
) -> tuple[Pde, tuple[str, ...]]:
    """Build the equation with its parameters.

    Args:
        pde: The equation with the parameters of the settings.
        parameters: The parameters of file and settings.
        given: The parameters that the settings give, by name.
        source: The open file, for the message.

    Returns:
        The equation, and a note about parameters that neither file nor settings give.

    Raises:
        UserError: The equation does not accept a value.
    """
    try:
        built = build_pde(pde.name, parameters.fixed)
    except UserError as error:
        if parameters.fixed.keys() == given.keys():
            raise
        raise UserError(f"{source.path}: {pde.name} does not accept its numbers ({error}); repair the file") from None
    own = built.params_dict()
    hidden = _never_by_name(pde) - {"duration"}
    defaults = [f"{name}={own[name]}" for name in own if name not in parameters.fixed and name not in hidden]
    if not defaults:
        return built, ()
    return built, (
        f"not in the file, so the equation's defaults are used: {', '.join(defaults)}; set pde.params.NAME=... to change one",
    )
