"""Units and unsupported attributes of what is used from a file, compared with what the equation expects.

The channels of our own equations have no unit: a unit that the file states is only reported. A channel with a unit must agree
with the file. Must not know layouts.
"""

from __future__ import annotations

from collections.abc import Sequence

from pidscale.convert.sample_reader import SampleReader
from pidscale.pde.base import Pde

_DIMENSIONLESS = ("", "1", "none", "dimensionless", "unitless", "-", "nondimensional", "n/a")
_KELVIN = {"k": 1.0, "kelvin": 1.0, "degc": 1.0, "celsius": 1.0, "c": 1.0, "°c": 1.0, "degf": 5 / 9, "f": 5 / 9}
_METRES = {
    "m": 1.0, "meter": 1.0, "metre": 1.0, "km": 1e3, "dm": 0.1, "cm": 0.01, "mm": 1e-3, "um": 1e-6, "nm": 1e-9,
}  # fmt: skip
_SECONDS = {
    "s": 1.0, "second": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0, "hour": 3600.0, "day": 86400.0,
}  # fmt: skip
_SIZES = {  # the size of each unit of a quantity, in the first unit of that quantity
    "temperature": _KELVIN,
    "length": _METRES,
    "time": _SECONDS,
    "pressure": {"pa": 1.0, "hpa": 100.0, "mbar": 100.0, "kpa": 1e3, "bar": 1e5, "atm": 101325.0},
    "velocity": {"m/s": 1.0, "m s-1": 1.0, "cm/s": 0.01, "cm s-1": 0.01, "km/h": 1 / 3.6, "km/s": 1e3},
}
_ZEROS = {"degc": 273.15, "celsius": 273.15, "c": 273.15, "°c": 273.15, "degf": 255.372, "f": 255.372}  # in kelvin
_UNITS = {unit: (kind, size, _ZEROS.get(unit, 0.0)) for kind, units in _SIZES.items() for unit, size in units.items()}


def check_attributes(reader: SampleReader, used: Sequence[str]) -> list[str]:
    """Find attributes that cannot be applied, and space coordinates with two units, among what is used from a file.

    Args:
        reader: The samples.
        used: The names of the scalars that became parameters.

    Returns:
        One line for each finding.
    """
    source = reader.source
    arrays = {pick.array.name: pick.array.attributes for pick in reader.picks}
    others = {name: one for name, one in source.attributes.items() if name in used or name not in source.scalars}
    found = [line for attributes in (*arrays.values(), *others.values()) for line in attributes.unsupported]
    x, y = (others[axis].unit if axis in others else "" for axis in "xy")
    if x and y and x != y and "degree" not in x:
        found.append(f"its x coordinate is in {x}, its y coordinate in {y}; write both in one unit")
    return found


def check_units(pde: Pde, reader: SampleReader) -> tuple[list[str], list[str]]:
    """Compare the units that a file states with those of the equation's channels.

    Args:
        pde: The equation.
        reader: The samples.

    Returns:
        Findings, which refuse the file unless it is forced, and notes for the report.
    """
    found: list[str] = []
    notes: list[str] = []
    kept: list[str] = []
    for pick in reader.picks:
        stated = pick.array.attributes.unit
        own = _channel_unit(pde, pick.slot)
        if _normalised(stated) in _DIMENSIONLESS or _normalised(stated) == _normalised(own):
            continue
        if _normalised(own) in _DIMENSIONLESS:
            kept.append(f"{pick.slot} in {stated}")
            continue
        expected = _UNITS.get(_normalised(own))
        given = _UNITS.get(_normalised(stated))
        mismatch = f"{pick.slot} (array '{pick.array.name}') is in {stated}, {pde.name} expects {own}"
        if expected is None or given is None:
            notes.append(f"{pick.slot} is in {stated}, which was not compared with the unit {own} of {pde.name}")
        elif expected[0] != given[0]:
            found.append(f"{mismatch}; check channels")
        elif (expected[1:] != given[1:]) and pick.scale == 1.0:
            factor = given[1] / expected[1]
            remedy = f"set scale.{pick.slot}={factor:g}" if expected[2] == given[2] else f"write it in {own}"
            found.append(f"{mismatch}; {remedy}")
    names = {"t": "times", "x": "x", "y": "y"}
    kept += [
        f"{names.get(name, name)} in {attributes.unit}"
        for name, attributes in reader.source.attributes.items()
        if _normalised(attributes.unit) not in _DIMENSIONLESS
    ]
    if kept:
        notes.append(f"units of the file are kept: {', '.join(kept)}; parameters must be in matching units")
    return found, notes


def _channel_unit(pde: Pde, slot: str) -> str:
    """Return the unit of a channel, or of the frames of a species."""
    return next((c.unit for c in pde.channels if c.name == slot or c.name.startswith(f"{slot}_")), "1")


def _normalised(unit: str) -> str:
    """Return a unit as the tables spell it: in lower case, with single spaces, in the singular."""
    words = " ".join(unit.lower().split()).removeprefix("degrees_").removeprefix("degree_")
    return words if words.endswith("ss") or len(words) < 4 else words.removesuffix("s")
