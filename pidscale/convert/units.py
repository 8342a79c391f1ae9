"""What a file says of its units and of its packing, against what is taken from it.

An equation's own channels have no unit, so one that a file states is told; a channel with a unit must have that of the file.
Must not know layouts.
"""

from __future__ import annotations

from collections.abc import Sequence

from pidscale.convert.reading import Reading
from pidscale.pde.base import Pde

_NONE = ("", "1", "none", "dimensionless", "unitless", "-", "nondimensional", "n/a")
_LIKE = {  # units of one quantity, each in the quantity's first
    "temperature": {
        "k": 1.0,
        "kelvin": 1.0,
        "degc": 1.0,
        "celsius": 1.0,
        "c": 1.0,
        "°c": 1.0,
        "degf": 5 / 9,
        "f": 5 / 9,
    },
    "length": {
        "m": 1.0,
        "meter": 1.0,
        "metre": 1.0,
        "km": 1e3,
        "dm": 0.1,
        "cm": 0.01,
        "mm": 1e-3,
        "um": 1e-6,
        "nm": 1e-9,
    },
    "time": {"s": 1.0, "second": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0, "hour": 3600.0, "day": 86400.0},
    "pressure": {"pa": 1.0, "hpa": 100.0, "mbar": 100.0, "kpa": 1e3, "bar": 1e5, "atm": 101325.0},
    "velocity": {"m/s": 1.0, "m s-1": 1.0, "cm/s": 0.01, "cm s-1": 0.01, "km/h": 1 / 3.6, "km/s": 1e3},
}
_ZEROS = {"degc": 273.15, "celsius": 273.15, "c": 273.15, "°c": 273.15, "degf": 255.372, "f": 255.372}  # in kelvin
_UNITS = {unit: (kind, size, _ZEROS.get(unit, 0.0)) for kind, units in _LIKE.items() for unit, size in units.items()}


def check_said(reading: Reading, used: Sequence[str]) -> list[str]:
    """Findings of what is taken: attributes that cannot be obeyed, and places whose axes have two units.

    used: the names of scalars that became parameters.
    """
    source = reading.source
    arrays = {pick.array.name: pick.array.said for pick in reading.picks}
    others = {name: said for name, said in source.said.items() if name in used or name not in source.scalars}
    found = [doubt for said in (*arrays.values(), *others.values()) for doubt in said.doubts]
    x, y = (others[axis].unit if axis in others else "" for axis in "xy")
    if x and y and x != y and "degree" not in x:
        found.append(f"its x coordinate is in {x}, its y coordinate in {y}; write both in one unit")
    return found


def check_units(pde: Pde, reading: Reading) -> tuple[list[str], list[str]]:
    """Findings and notes about the units of what is taken."""
    found, notes, kept = list[str](), list[str](), list[str]()
    for pick in reading.picks:
        stated, own = pick.array.said.unit, _unit_of(pde, pick.slot)
        if _plain(stated) in _NONE or _plain(stated) == _plain(own):
            continue
        if _plain(own) in _NONE:
            kept.append(f"{pick.slot} in {stated}")
            continue
        mine, theirs = _UNITS.get(_plain(own)), _UNITS.get(_plain(stated))
        if mine is None or theirs is None:
            notes.append(f"{pick.slot} is in {stated}, which is not held against the unit {own} of {pde.name}")
        elif mine[0] != theirs[0]:
            found.append(
                f"{pick.slot} (array '{pick.array.name}') is in {stated}, {pde.name} takes {own}; check channels"
            )
        elif (mine[1:] != theirs[1:]) and pick.scale == 1.0:
            factor = theirs[1] / mine[1]
            remedy = f"set scale.{pick.slot}={factor:g}" if mine[2] == theirs[2] else f"write it in {own}"
            found.append(f"{pick.slot} (array '{pick.array.name}') is in {stated}, {pde.name} takes {own}; {remedy}")
    source = reading.source
    names = {"t": "times", "x": "x", "y": "y"}
    kept += [
        f"{names.get(name, name)} in {said.unit}"
        for name, said in source.said.items()
        if _plain(said.unit) not in _NONE
    ]
    if kept:
        notes.append(f"units of the file are kept as they are: {', '.join(kept)}; parameters must go with them")
    return found, notes


def _unit_of(pde: Pde, slot: str) -> str:
    """The unit of a channel, or of the frames of a species."""
    return next((c.unit for c in pde.channels if c.name == slot or c.name.startswith(f"{slot}_")), "1")


def _plain(unit: str) -> str:
    """A unit in the spelling of the table: small letters, one blank, no plural."""
    words = " ".join(unit.lower().split()).removeprefix("degrees_").removeprefix("degree_")
    return words if words.endswith("ss") or len(words) < 4 else words.removesuffix("s")
