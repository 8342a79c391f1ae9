"""Attributes of HDF5, netCDF and zarr arrays: packing, missing values, valid range, unit and the names of dims.

Reads the attributes of the CF conventions, of netCDF and of HDF5's dimension scales. An attribute that cannot be applied is
listed in `Attributes.unsupported`, never ignored. Must not know equations, or which dataset will be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pidscale.config import distinct
from pidscale.plain import printable

MISSING = ("_FillValue", "missing_value", "nodata", "no_data", "nodata_value", "fill_value", "fillvalue", "undetect")
# attributes of other conventions that change numbers, with the value that changes nothing
_OTHER_CONVENTIONS = {
    "scale": 1.0, "gain": 1.0, "slope": 1.0, "multiplier": 1.0, "offset": 0.0, "intercept": 0.0,
}  # fmt: skip
# what netCDF itself writes where a program wrote nothing, by type
DEFAULT_FILLS = {
    "f4": 9.969209968386869e36, "f8": 9.969209968386869e36, "i2": -32767, "u2": 65535, "i4": -2147483647,
    "u4": 4294967295, "i8": -9223372036854775806, "u8": 18446744073709551614,
}  # fmt: skip
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"


@dataclass(frozen=True)
class Attributes:
    """How stored values become numbers: stored * scale + offset, NaN where a value is missing or outside its range.

    Attributes:
        scale: The factor, `scale_factor` in a file.
        offset: The summand, `add_offset` in a file.
        unsigned: Whether signed integers are read as unsigned ones, `_Unsigned` in a file.
        missing: The stored values that mean "missing", by the attribute that declares them.
        valid_range: The least and the greatest valid value; None if the file declares no range.
        range_of_numbers: Whether `valid_range` bounds the numbers; otherwise it bounds the stored values.
        unit: The unit as the file spells it; empty if the file states none.
        dims: The names of the dims; empty if the file names none.
        boolean: Whether bytes stand for false and true: xarray stores booleans so where a format has none.
        unsupported: One line for each attribute that cannot be applied.
    """

    scale: float = 1.0
    offset: float = 0.0
    unsigned: bool = False
    missing: Mapping[str, tuple[float | int, ...]] = field(default_factory=dict)
    valid_range: tuple[float, float] | None = None
    range_of_numbers: bool = False
    unit: str = ""
    dims: tuple[str, ...] = ()
    boolean: bool = False
    unsupported: tuple[str, ...] = ()

    @property
    def packed(self) -> bool:
        """Whether numbers differ from the stored values."""
        return self.scale != 1.0 or self.offset != 0.0 or self.unsigned

    @property
    def changes_values(self) -> bool:
        """Whether numbers are packed, may be missing or have a valid range."""
        return bool(self.packed or self.missing or self.valid_range)

    def dtype(self, stored: np.dtype) -> np.dtype:
        """Return the dtype of the numbers that values of the dtype `stored` become."""
        if self.boolean:
            return np.dtype(bool)
        if stored.kind == "b" or not self.changes_values:
            return stored
        return np.dtype(np.float64) if self.packed or stored.kind != "f" else stored

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Return the numbers that stored values stand for, NaN for those that are missing or outside the valid range."""
        if self.boolean:
            return stored.astype(bool)
        if stored.dtype.kind == "b" or not self.changes_values:
            return stored
        raw = self._with_sign(stored)
        numbers = raw.astype(self.dtype(stored.dtype))
        if self.scale != 1.0 or self.offset != 0.0:
            numbers = numbers * self.scale + self.offset
        missing = self._out_of_range(raw, numbers)
        for values in self.missing.values():
            for value in values:
                missing |= _equal(raw, value)
        numbers[missing] = np.nan
        return numbers

    def missing_reason(self, stored: Any) -> str:
        """Say why one stored value is not a number, for a message.

        Args:
            stored: A single stored value, of any shape.

        Returns:
            The declaration that makes the value missing, or an empty string if the attributes declare nothing about it.
        """
        one = self._with_sign(np.asarray(stored).reshape(1))
        for name, values in self.missing.items():
            if any(_equal(one, value)[0] for value in values):
                return f"a declared missing value, {name}={one[0]:g}"
        numbers = one.astype(np.float64) * self.scale + self.offset
        if self.valid_range is not None and self._out_of_range(one, numbers)[0]:
            low, high = self.valid_range
            shown = numbers[0] if self.range_of_numbers else one[0]
            value, least, greatest = distinct(shown, low, high, digits=6)
            return f"{value}, outside the valid range {least} to {greatest} that the file declares"
        return ""

    def _with_sign(self, stored: np.ndarray) -> np.ndarray:
        """Return the stored values as unsigned integers where the file says so."""
        if self.unsigned and stored.dtype.kind == "i":
            return stored.astype(stored.dtype.newbyteorder("=")).view(f"u{stored.dtype.itemsize}")
        return stored

    def _out_of_range(self, raw: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        if self.valid_range is None:
            return np.zeros(raw.shape, dtype=bool)
        tested = numbers if self.range_of_numbers else raw
        outside: np.ndarray = (tested < self.valid_range[0]) | (tested > self.valid_range[1])
        return outside


def _equal(raw: np.ndarray, value: float | int) -> np.ndarray:
    """Return where stored values equal `value`, compared in their own type."""
    if raw.dtype.kind == "f":
        same: np.ndarray = np.isnan(raw) if np.isnan(value) else raw == np.asarray(value).astype(raw.dtype)
        return same
    if not np.isfinite(value) or value != int(value):
        return np.zeros(raw.shape, dtype=bool)
    limits = np.iinfo(raw.dtype)
    whole = int(value)
    if whole < 0 <= limits.min:  # the attribute is signed, the values are not
        whole += 2 ** (8 * raw.dtype.itemsize)
    return raw == whole if limits.min <= whole <= limits.max else np.zeros(raw.shape, dtype=bool)


def is_bare_dimension(dataset: Any) -> bool:
    """Return whether a dataset only marks a netCDF dimension and has no values of its own."""
    return as_text(dataset.attrs.get("NAME", "")).startswith(_NO_VARIABLE)


def attributes_of(dataset: Any, netcdf: bool = False) -> Attributes:
    """Read the attributes of an open h5py dataset; see `read_attributes`."""
    return read_attributes(dataset, _dim_names(dataset), netcdf)


@dataclass(frozen=True)
class Stored:
    """What `read_attributes` reads of an array; an h5py dataset has the same attributes.

    Attributes:
        name: The name in the file.
        attrs: What the file says of the array, by name.
        dtype: The type of the stored values.
    """

    name: str
    attrs: Mapping[str, Any]
    dtype: np.dtype


def read_attributes(dataset: Any, dims: tuple[str, ...], netcdf: bool = False) -> Attributes:
    """Read what a file says of the numbers of an array.

    Args:
        dataset: An open h5py dataset, or a `Stored`.
        dims: The names of the dims; empty if the file names none.
        netcdf: Whether the netCDF library wrote the file; its default fill values then count as missing values.

    Returns:
        The attributes that this package understands.
    """
    given = _GivenAttributes(dataset)
    scale = given.number("scale_factor", 1.0)
    offset = given.number("add_offset", 0.0)
    if scale == 0:
        given.reject("scale_factor=0, which makes every number the same; repair the file")
        scale = 1.0
    unsigned = given.text("_Unsigned").lower() in ("true", "1")
    missing = {name: values for name in MISSING if (values := given.numbers(name))}
    kind = f"{dataset.dtype.kind}{dataset.dtype.itemsize}"
    if netcdf and "_FillValue" not in missing and kind in DEFAULT_FILLS:
        missing["netCDF's own fill value"] = (DEFAULT_FILLS[kind],)
    for name, neutral in _OTHER_CONVENTIONS.items():
        value = given.number(name, neutral, reject=False)  # text under such a name means something else
        if value != neutral:
            given.reject(
                f"an attribute {name}={value:g} that is not of the CF conventions: write the true numbers, or "
                "scale_factor and add_offset"
            )
    valid_range, range_of_numbers = given.valid_range(scale != 1.0 or offset != 0.0, unsigned)
    found = Attributes(
        scale=scale,
        offset=offset,
        unsigned=unsigned,
        missing=missing,
        valid_range=valid_range,
        range_of_numbers=range_of_numbers,
        unit=given.text("units"),
        dims=dims,
        unsupported=tuple(given.unsupported),
    )
    boolean = given.text("dtype").lower() == "bool" and dataset.dtype.kind in "iu" and dataset.dtype.itemsize == 1
    found = replace(found, boolean=boolean)
    return boolean_attributes(found, given.name) if boolean or dataset.dtype.kind == "b" else found


def boolean_attributes(attributes: Attributes, name: str) -> Attributes:
    """Return the attributes of a boolean array `name`: packing and missing values become a line of `unsupported`."""
    if not attributes.changes_values:
        return attributes
    line = (
        f"array '{name}' holds booleans, but has attributes of packed or missing numbers; write the numbers themselves"
    )
    unsupported = (*attributes.unsupported, line)
    return Attributes(unit=attributes.unit, dims=attributes.dims, boolean=attributes.boolean, unsupported=unsupported)


class _GivenAttributes:
    """The attributes of one dataset as it spells them; names are compared without case."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.name = str(dataset.name).lstrip("/")
        self.unsupported: list[str] = []
        self._spelled: dict[str, str] = {}
        self._twice: set[str] = set()
        for key in dataset.attrs:
            if key.lower() in self._spelled:
                self._twice.add(key.lower())
            self._spelled[key.lower()] = key

    def reject(self, problem: str) -> None:
        """Add a line about an attribute that cannot be applied."""
        self.unsupported.append(f"array '{self.name}' has {problem}")

    def text(self, name: str) -> str:
        """Return an attribute as one line of text, empty if there is none."""
        key = self._spelled.get(name.lower())
        return "" if key is None else " ".join(printable(as_text(self.dataset.attrs[key])).split())[:80]

    def numbers(self, name: str, reject: bool = True) -> tuple[Any, ...]:
        """Return the numbers of an attribute, none if it is not there or holds something else."""
        key = self._spelled.get(name.lower())
        if key is None:
            return ()
        if reject and name.lower() in self._twice:
            self.reject(f"{key} twice, in lower and in upper case; repair the file")
        value = self.dataset.attrs[key]
        found = np.asarray(value) if not hasattr(value, "shape") or value.shape is not None else np.zeros(0)
        if found.dtype.kind in "biuf" and found.size > 0:
            return tuple(found.reshape(-1).tolist())
        try:
            return (float(as_text(value)),)
        except ValueError:
            if reject:
                self.reject(f"{key}={as_text(value)[:40]!r}, expected a number; repair the file")
            return ()

    def number(self, name: str, default: float, reject: bool = True) -> float:
        """Return the one finite number of an attribute, `default` if it is not there or holds something else."""
        values = self.numbers(name, reject)
        if len(values) > 1 or (values and not np.isfinite(values[0])):
            if reject:
                self.reject(f"{name}={list(values)}, expected one finite number; repair the file")
            return default
        return float(values[0]) if values else default

    def valid_range(self, packed: bool, unsigned: bool) -> tuple[tuple[float, float] | None, bool]:
        """Return the valid range, and whether it bounds the unpacked numbers: its type is then not the stored one."""
        ends = self.numbers("valid_range")
        if ends and len(ends) != 2:
            self.reject(f"valid_range={list(ends)}, expected two numbers; repair the file")
            return None, False
        low, high = ends or (self.number("valid_min", -np.inf), self.number("valid_max", np.inf))
        if (low, high) == (-np.inf, np.inf):
            return None, False
        if np.isnan(low) or np.isnan(high):
            self.reject(f"a valid range of {low:g} to {high:g}; repair the file")
            return None, False
        keys = [self._spelled[key] for key in ("valid_range", "valid_min", "valid_max") if key in self._spelled]
        floating = any(np.asarray(self.dataset.attrs[key]).dtype.kind == "f" for key in keys)
        of_numbers = packed and floating and self.dataset.dtype.kind != "f"
        if unsigned and not of_numbers:
            size = 2 ** (8 * self.dataset.dtype.itemsize)
            low, high = (end + size if end < 0 and np.isfinite(end) else end for end in (low, high))
        return (float(low), float(high)), of_numbers


def _dim_names(dataset: Any) -> tuple[str, ...]:
    """Return the names of the dims from xarray's list, attached scales or labels; none if no dim has a name."""
    listed = dataset.attrs.get("_ARRAY_DIMENSIONS")
    if listed is not None and len(np.atleast_1d(listed)) == len(dataset.shape):
        return tuple(as_text(name) for name in np.atleast_1d(listed))
    names = [_last_part(dim[0].name) if len(dim) else as_text(dim.label) for dim in dataset.dims]
    return tuple(names) if any(names) else ()


def _last_part(name: str | None) -> str:
    return str(name or "").rsplit("/", 1)[-1]


def as_text(value: Any) -> str:
    """Return the value of an attribute as text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
