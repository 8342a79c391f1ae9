"""Parameters of an equation as a file gives them: fixed ones, one for each sample, and the times of frames.

What the file says and what the settings say must agree; what neither says is the equation's default, and is told. Must not
know channels or shards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.source import Source
from pidscale.convert.missing import marked_scalars
from pidscale.convert.request import Asked, is_count
from pidscale.pde import build_pde
from pidscale.pde.base import Pde
from pidscale.pde.evolution import Evolution

# Of the generator's own law, or found from the fields: a number of the same name in a file means something else.
LAWS = frozenset({"alpha", "tau", "size", "warm_up", "variant", "low", "high", "frames", "duration", "amplitude"})
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
_CLOSE = 1e-4  # relative difference at which a file and the settings still agree: files hold float32


@dataclass(frozen=True)
class Parameters:
    """fixed: of the equation, given or found. samples: values [N] by name, for each sample. used: which array gave which.

    lost: samples to leave out, for want of a number, and why.
    """

    fixed: dict[str, Any]
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)

    def of(self, number: int) -> dict[str, float]:
        """The parameters of one sample."""
        return {name: plain(values[number]) for name, values in self.samples.items()}


def plain(value: Any) -> float:
    """A number as the shortest decimal that its type tells apart: 0.01 for a float32 of 0.01."""
    return float(str(np.asarray(value)[()]))


def find_parameters(pde: Pde, given: Mapping[str, Any], source: Source, count: int, asked: Asked) -> Parameters:
    """Match a file's numbers with the equation's parameters. UserError where they contradict the settings or lack one."""
    own = [name for name in pde.params_dict() if name not in pde.varying]
    for name in asked.parameters:
        if name not in own and name not in pde.varying:
            has = ", ".join([*own, *pde.varying])
            raise UserError(f"parameters.{name}: {pde.name} has no such parameter; it has {has}")
    words = {name: asked.parameters.get(name) or _known(pde, name, source) for name in (*own, *pde.varying)}
    used = {name: word for name, word in words.items() if word is not None}
    fixed, samples = dict(given), {}
    for name, word in used.items():
        values = _numbers(source, name, word)
        if name in pde.varying:
            samples[name] = _each(source, word, values, count)
        else:
            fixed[name] = _agreed(pde.name, name, _single(source, word, name, pde.name, values), given, source)
    for name in pde.varying:
        if name not in samples:
            raise UserError(
                f"{source.sample(0)} has no '{name}', which {pde.name} takes for each sample; the file has "
                f"{', '.join(source.scalars) or 'no numbers'}: set parameters.{name}=ARRAY, an array [N] of the file"
            )
    for other, values in source.scalars.items():  # what the equation does not take is kept with each sample
        if other not in used.values() and other not in samples and values.shape == (count,):
            samples[other] = values
    lost = _lost(source, samples, asked)
    kept = np.setdiff1d(np.arange(count), list(lost))
    if len(kept):
        _set_ranges(pde, given, source, fixed, samples, kept)
    return Parameters(fixed, samples, used, lost)


def _numbers(source: Source, name: str, word: str) -> np.ndarray:
    """The numbers [] or [N] of ARRAY, or those of one column of an array [N, P], as ARRAY:i."""
    array, _, column = word.partition(":")
    if not column and array in source.scalars:
        return source.scalars[array]
    table = source.arrays.get(array)
    if is_count(column) and table is not None and len(table.shape) == 2 and int(column) < table.shape[1]:
        return source.read(table, (slice(None), slice(int(column), int(column) + 1)))[:, 0]
    has = ", ".join(source.scalars) or "none"
    raise UserError(
        f"parameters.{name}={word}: {source.path} has no such number; it has {has}, or ARRAY:i of an array [N, P]"
    )


def _set_ranges(
    pde: Pde,
    given: Mapping[str, Any],
    source: Source,
    fixed: dict[str, Any],
    samples: Mapping[str, np.ndarray],
    kept: np.ndarray,
) -> None:
    """Ranges of the parameters of the samples `kept`: those of the file, unless given. UserError for a value outside."""
    own = pde.params_dict()
    for name in pde.varying:
        stored = samples[name][kept]
        values = stored.astype(np.float64)
        low, high = plain(stored.min()), plain(stored.max())
        ends = {f"{name}_low": low, f"{name}_high": high}
        if not set(ends) <= set(own):  # a wind is drawn from -speed to speed
            ends = {"speed": max(abs(low), abs(high), fixed.get("speed", 0.0))}
        for key, value in ends.items():
            if key not in given:
                fixed[key] = value
                continue
            outside = values < given[key] if key.endswith("_low") else abs(values) > given[key]
            if outside.any():
                number = int(np.argmax(outside))
                raise UserError(
                    f"{source.sample(int(kept[number]))} has {name}={values[number]:g}, pde.params.{key}={given[key]}; set "
                    f"pde.params.{key}={value:g}"
                )


def _laws(pde: Pde) -> frozenset[str]:
    """Parameters that a number of a file never sets by its name alone."""
    own = pde.params_dict()
    ranges = {name for name in own if name.endswith(("_low", "_high"))}
    return LAWS | ranges | ({"speed"} if "velocity_x" in pde.varying else set())


def _known(pde: Pde, name: str, source: Source) -> str | None:
    """The scalar of a file that is this parameter by its name or a known alias."""
    if name not in _laws(pde) and name in source.scalars:
        return name
    found = [alias for alias in ALIASES.get(pde.name, {}).get(name, ()) if alias in source.scalars]
    if len(found) > 1:
        raise UserError(f"{source.path}: {' and '.join(found)} could be {name}; set parameters.{name}=ARRAY")
    return found[0] if found else None


def _each(source: Source, array: str, values: np.ndarray, count: int) -> np.ndarray:
    if values.shape not in ((), (count,)):
        raise UserError(
            f"{source.path}: '{array}' has {values.size} values for {count} samples; write one for each sample"
        )
    return np.broadcast_to(values, (count,))


def _single(source: Source, array: str, name: str, equation: str, values: np.ndarray) -> float:
    low, high = plain(values.min()), plain(values.max())
    if abs(high - low) > _CLOSE * max(abs(high), abs(low)):
        raise UserError(
            f"{source.path}: '{array}' goes from {low:g} to {high:g} between samples, but {equation} has one {name} for a "
            "set; write the samples of one value into a file of their own"
        )
    return plain(values.reshape(-1)[0])


def _agreed(equation: str, name: str, found: Any, given: Mapping[str, Any], source: Source) -> Any:
    """The value in use: the given one where both agree."""
    if name not in given:
        return found
    if not math.isclose(float(given[name]), found, rel_tol=_CLOSE):
        raise UserError(
            f"{source.path}: {name} is {found:g} in the file, pde.params.{name}={given[name]} in the settings of {equation}; "
            f"set pde.params.{name}={found:g}"
        )
    return given[name]


def _lost(source: Source, samples: Mapping[str, np.ndarray], asked: Asked) -> dict[int, str]:
    """Samples of which a number is none: not finite, declared missing, or a usual mark of that; and why.

    UserError names the first of each number, unless bad samples are to be left out.
    """
    lost: dict[int, str] = {}
    for name, values in samples.items():
        wrong = ~np.isfinite(values.astype(np.float64))
        if not wrong.any() and values.size > 1 and not asked.force:
            wrong = marked_scalars(values)
        for number in np.flatnonzero(wrong).tolist():
            value = float(values[number])
            why = "is missing or not finite"
            if np.isfinite(value):
                why = f"is {value:g}, a usual mark of a missing value, which the file does not declare"
            if asked.bad != "omit":
                remedy = ", or force=true to take it as it stands" * bool(np.isfinite(value))
                raise UserError(
                    f"{source.sample(number)}, '{name}' {why} (so are {int(wrong.sum())} of {values.size}); mend it, or set "
                    f"bad=omit to leave such samples out{remedy}"
                )
            lost[number] = f"'{name}' {why}"
    return lost


def with_times(pde: Pde, source: Source, times: range, given: Mapping[str, Any], fixed: dict[str, Any]) -> None:
    """Add frames and duration of the times that are taken. UserError where they are uneven or contradict the settings."""
    if isinstance(pde, Evolution):
        if given.get("frames", len(times)) != len(times):
            raise UserError(
                f"{source.path}: {len(times)} times are taken, pde.params.frames={given['frames']}; set pde.params.frames="
                f"{len(times)}, or take others by start= and every="
            )
        fixed["frames"] = len(times)
    part = times.start != 0 or times.step != 1
    if source.times is None and part and "duration" not in given and (isinstance(pde, Evolution) or _is_strip(pde)):
        remedy = (
            "set pde.params.duration"
            if "duration" in pde.params_dict()
            else f"write its times into the file: {pde.name} takes a span of {pde.grid(8).extent[0]:g}"
        )
        raise UserError(
            f"{source.path}: has no times, so what span start={times.start} every={times.step} leave is not known; {remedy}"
        )
    if source.times is not None and (isinstance(pde, Evolution) or _is_strip(pde)):
        _set_duration(pde, source, source.times, times, given, fixed)


def _is_strip(pde: Pde) -> bool:
    """Whether rows are times."""
    return pde.grid(8).kind == "strip"


def _set_duration(
    pde: Pde, source: Source, stored: np.ndarray, times: range, given: Mapping[str, Any], fixed: dict[str, Any]
) -> None:
    if len(stored) < times[-1] + 1:
        raise UserError(f"{source.path}: {len(stored)} values in its time coordinate, {times[-1] + 1} times; mend it")
    taken = stored[times.start : times.stop : times.step].astype(np.float64)
    steps = np.diff(taken)
    if (
        not np.isfinite(taken).all()
        or not (abs(steps - steps.mean()) <= 1e-3 * abs(steps.mean())).all()
        or steps[0] <= 0
    ):
        raise UserError(
            f"{source.path}: its times are not at even steps ({steps.min():.3g} to {steps.max():.3g}); take even ones by "
            "start= and every=, or write them into a new file"
        )
    duration, length = float(f"{taken[-1] - taken[0]:.6g}"), pde.grid(8).extent[0]
    if "duration" in pde.params_dict():
        fixed["duration"] = _agreed(pde.name, "duration", duration, given, source)
    elif not math.isclose(duration, length, rel_tol=_CLOSE):
        raise UserError(
            f"{source.path}: its times span {duration:g}, {pde.name} takes {length:g}; rescale time and parameters"
        )


def finished_equation(
    pde: Pde, parameters: Parameters, given: Mapping[str, Any], source: Source
) -> tuple[Pde, tuple[str, ...]]:
    """The equation with its parameters, and a note of those that neither file nor settings gave.

    UserError where the file's own numbers are none that the equation takes.
    """
    try:
        built = build_pde(pde.name, parameters.fixed)
    except UserError as error:
        if parameters.fixed.keys() == given.keys():
            raise
        raise UserError(f"{source.path}: its own numbers are none for {pde.name} ({error}); mend the file") from None
    own, laws = built.params_dict(), _laws(pde) - {"duration"}
    silent = [f"{name}={own[name]}" for name in own if name not in parameters.fixed and name not in laws]
    if not silent:
        return built, ()
    return built, (
        f"not in the file, so the equation's own: {', '.join(silent)}; pde.params.NAME=... if it is another",
    )
