"""What an HDF5 or netCDF file says of a dataset's numbers: how they are packed, which are missing, their unit, their dims.

The attributes are those of the CF conventions, of netCDF and of HDF5's dimension scales. What cannot be obeyed is a doubt,
never passed over. Must not know equations, or which dataset will be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pidscale.plain import printable

MISSING = ("_FillValue", "missing_value", "nodata", "no_data", "nodata_value", "fill_value", "fillvalue", "undetect")
_FACTORS = {"scale": 1.0, "gain": 1.0, "slope": 1.0, "multiplier": 1.0, "offset": 0.0, "intercept": 0.0}
# what netCDF itself writes where a program wrote nothing, by type
DEFAULT_FILLS = {
    "f4": 9.969209968386869e36, "f8": 9.969209968386869e36, "i2": -32767, "u2": 65535, "i4": -2147483647,
    "u4": 4294967295, "i8": -9223372036854775806, "u8": 18446744073709551614,
}  # fmt: skip
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"


@dataclass(frozen=True)
class Said:
    """Numbers are stored * scale + offset, stored ones read as unsigned where the file says so.

    missing: stored values by the attribute that declares them. valid: least and greatest stored value, or number where
    of_numbers. unit, dims: empty where the file says none. doubts: what cannot be obeyed, one line each.
    """

    scale: float = 1.0
    offset: float = 0.0
    unsigned: bool = False
    missing: Mapping[str, tuple[float | int, ...]] = field(default_factory=dict)
    valid: tuple[float, float] | None = None
    of_numbers: bool = False
    unit: str = ""
    dims: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def packed(self) -> bool:
        """Whether numbers differ from what is stored."""
        return self.scale != 1.0 or self.offset != 0.0 or self.unsigned

    def dtype(self, stored: np.dtype) -> np.dtype:
        """The type of the numbers of a stored type."""
        if stored.kind == "b" or not (self.packed or self.missing or self.valid):
            return stored
        return np.dtype(np.float64) if self.packed or stored.kind != "f" else stored

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """The numbers that are meant; those that are declared missing are nan."""
        if stored.dtype.kind == "b" or not (self.packed or self.missing or self.valid):
            return stored
        raw = self._signed_right(stored)
        numbers = raw.astype(self.dtype(stored.dtype))
        if self.scale != 1.0 or self.offset != 0.0:
            numbers = numbers * self.scale + self.offset
        gone = self._outside(raw, numbers)
        for values in self.missing.values():
            for value in values:
                gone |= _equal(raw, value)
        numbers[gone] = np.nan
        return numbers

    def why(self, stored: Any) -> str:
        """Why a stored value is no number, "" where the file does not say so."""
        one = self._signed_right(np.asarray(stored).reshape(1))
        for name, values in self.missing.items():
            if any(_equal(one, value)[0] for value in values):
                return f"a declared missing value, {name}={one[0]:g}"
        numbers = one.astype(np.float64) * self.scale + self.offset
        if self.valid is not None and self._outside(one, numbers)[0]:
            shown = numbers[0] if self.of_numbers else one[0]
            return f"{shown:g}, outside the valid range {self.valid[0]:g} to {self.valid[1]:g} that the file declares"
        return ""

    def _signed_right(self, stored: np.ndarray) -> np.ndarray:
        if self.unsigned and stored.dtype.kind == "i":
            return stored.astype(stored.dtype.newbyteorder("=")).view(f"u{stored.dtype.itemsize}")
        return stored

    def _outside(self, raw: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        if self.valid is None:
            return np.zeros(raw.shape, dtype=bool)
        tested = numbers if self.of_numbers else raw
        outside: np.ndarray = (tested < self.valid[0]) | (tested > self.valid[1])
        return outside


def _equal(raw: np.ndarray, value: float | int) -> np.ndarray:
    """Where stored numbers are this value, in their own type."""
    if raw.dtype.kind == "f":
        same: np.ndarray = np.isnan(raw) if np.isnan(value) else raw == np.asarray(value).astype(raw.dtype)
        return same
    if not np.isfinite(value) or value != int(value):
        return np.zeros(raw.shape, dtype=bool)
    limits, whole = np.iinfo(raw.dtype), int(value)
    if whole < 0 <= limits.min:  # the attribute is signed where the numbers are not
        whole += 2 ** (8 * raw.dtype.itemsize)
    return raw == whole if limits.min <= whole <= limits.max else np.zeros(raw.shape, dtype=bool)


def is_bare_dimension(dataset: Any) -> bool:
    """Whether a dataset is netCDF's stand-in for a dimension without values of its own."""
    return text(dataset.attrs.get("NAME", "")).startswith(_NO_VARIABLE)


def said_of(dataset: Any, netcdf: bool = False) -> Said:
    """What the attributes of a dataset say. netcdf: of a file by the netCDF library, whose own fill values count then."""
    given, doubts = _Attributes(dataset), list[str]()
    scale, offset = given.one("scale_factor", 1.0, doubts), given.one("add_offset", 0.0, doubts)
    if scale == 0:
        doubts.append(f"array '{given.name}' has scale_factor=0, which leaves nothing of it; mend the file")
        scale = 1.0
    unsigned = given.word("_Unsigned").lower() in ("true", "1")
    missing = {name: values for name in MISSING if (values := given.several(name, doubts))}
    kind = f"{dataset.dtype.kind}{dataset.dtype.itemsize}"
    if netcdf and "_FillValue" not in missing and kind in DEFAULT_FILLS:
        missing["netCDF's own fill value"] = (DEFAULT_FILLS[kind],)
    for name, neutral in _FACTORS.items():
        value = given.one(name, neutral, [])  # a word of this name is about something else
        if value != neutral:
            doubts.append(
                f"array '{given.name}' has an attribute {name}={value:g} that is not of the CF conventions: write the true "
                "numbers, or scale_factor and add_offset"
            )
    valid, of_numbers = given.valid(scale != 1.0 or offset != 0.0, unsigned, doubts)
    said = Said(scale, offset, unsigned, missing, valid, of_numbers, given.word("units"), _dims(dataset), tuple(doubts))
    return of_truths(said, given.name) if dataset.dtype.kind == "b" else said


def of_truths(said: Said, name: str) -> Said:
    """The same of an array of truth values, which are neither packed nor missing: a doubt where a file says they are."""
    if not (said.packed or said.missing or said.valid):
        return said
    doubt = (
        f"array '{name}' holds truth values, and attributes of packed or missing numbers; write the numbers themselves"
    )
    return Said(unit=said.unit, dims=said.dims, doubts=(*said.doubts, doubt))


class _Attributes:
    """The attributes of one dataset as numbers, any case of letters."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.name = dataset, str(dataset.name).lstrip("/")
        self._spelled: dict[str, str] = {}
        self._twice: set[str] = set()
        for key in dataset.attrs:
            if key.lower() in self._spelled:
                self._twice.add(key.lower())
            self._spelled[key.lower()] = key

    def word(self, name: str) -> str:
        """An attribute as text of one line, "" where it is not there."""
        key = self._spelled.get(name.lower())
        return "" if key is None else " ".join(printable(text(self.dataset.attrs[key])).split())[:80]

    def several(self, name: str, doubts: list[str]) -> tuple[Any, ...]:
        """The numbers of an attribute, () where it is not there."""
        key = self._spelled.get(name.lower())
        if key is None:
            return ()
        if name.lower() in self._twice:
            doubts.append(f"array '{self.name}' has {key} twice, in small and in capital letters; mend the file")
        value = self.dataset.attrs[key]
        found = np.asarray(value) if not hasattr(value, "shape") or value.shape is not None else np.zeros(0)
        if found.dtype.kind not in "biuf" or found.size == 0:
            try:
                return (float(text(value)),)
            except ValueError:
                doubts.append(f"array '{self.name}' has {key}={text(value)[:40]!r}, expected a number; mend the file")
                return ()
        return tuple(found.reshape(-1).tolist())

    def one(self, name: str, usual: float, doubts: list[str]) -> float:
        """The single finite number of an attribute; the usual one where it is not there."""
        values = self.several(name, doubts)
        if len(values) > 1 or (values and not np.isfinite(values[0])):
            doubts.append(f"array '{self.name}' has {name}={list(values)}, expected one finite number; mend the file")
            return usual
        return float(values[0]) if values else usual

    def valid(self, packed: bool, unsigned: bool, doubts: list[str]) -> tuple[tuple[float, float] | None, bool]:
        """Least and greatest valid value, and whether they are meant of the unpacked numbers: theirs is then another type."""
        ends = self.several("valid_range", doubts)
        if ends and len(ends) != 2:
            doubts.append(f"array '{self.name}' has valid_range={list(ends)}, expected two numbers; mend the file")
            return None, False
        low, high = ends or (self.one("valid_min", -np.inf, doubts), self.one("valid_max", np.inf, doubts))
        if (low, high) == (-np.inf, np.inf):
            return None, False
        if np.isnan(low) or np.isnan(high):
            doubts.append(f"array '{self.name}' has a valid range of {low:g} to {high:g}; mend the file")
            return None, False
        keys = [self._spelled[key] for key in ("valid_range", "valid_min", "valid_max") if key in self._spelled]
        floating = any(np.asarray(self.dataset.attrs[key]).dtype.kind == "f" for key in keys)
        of_numbers = packed and floating and self.dataset.dtype.kind != "f"
        if unsigned and not of_numbers:
            size = 2 ** (8 * self.dataset.dtype.itemsize)
            low, high = (end + size if end < 0 and np.isfinite(end) else end for end in (low, high))
        return (float(low), float(high)), of_numbers


def _dims(dataset: Any) -> tuple[str, ...]:
    """The names of a dataset's dims, () where none has one: scales that are attached, labels, or xarray's own list."""
    listed = dataset.attrs.get("_ARRAY_DIMENSIONS")
    if listed is not None and len(np.atleast_1d(listed)) == len(dataset.shape):
        return tuple(text(name) for name in np.atleast_1d(listed))
    names = [_last(dim[0].name) if len(dim) else text(dim.label) for dim in dataset.dims]
    return tuple(names) if any(names) else ()


def _last(name: str | None) -> str:
    return str(name or "").rsplit("/", 1)[-1]


def text(value: Any) -> str:
    """An attribute as text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
