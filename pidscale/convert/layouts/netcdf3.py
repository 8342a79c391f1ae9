"""Reader of netCDF's classic format and its variant with 64-bit offsets, by scipy. Files are mapped and read in parts.

Must not know equations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.attributes import Stored, read_attributes
from pidscale.convert.layouts.faults import file_errors
from pidscale.convert.layouts.source import Array, Slices, Source, build_source

_VERSIONS = (1, 2)  # the fourth byte of a file


def open_netcdf3(path: Path) -> Source:
    """Open every variable of numbers, mapped. Raises UserError if the file is damaged or of another variant."""
    from scipy.io import netcdf_file

    with file_errors(path, "netcdf3"):
        with open(path, "rb") as stream:
            version = stream.read(4)[3]
        if version not in _VERSIONS:
            what = "netCDF with 64-bit data (CDF-5)" if version == 5 else f"netCDF of an unknown version, {version}"
            raise UserError(f"{path}: {what}, which is not supported; convert it: nccopy -k nc4 {path.name} NEW.nc")
        file = netcdf_file(path, "r", mmap=True)
        numeric = [name for name, one in file.variables.items() if one.data.dtype.kind in "iuf"]
        arrays = {name: _array(file, name) for name in numeric}
    return build_source(path, "netcdf3", arrays)


def _array(file: Any, name: str) -> Array:
    """Return a variable as an Array. It holds the file, never a view of the map, so that the file can be closed."""
    variable = file.variables[name]
    stored = Stored(name, _texts(variable._attributes), variable.data.dtype)  # scipy has no public mapping of them
    attributes = read_attributes(stored, tuple(variable.dimensions), netcdf=True)

    def read_raw(index: Slices) -> np.ndarray:
        return np.array(file.variables[name].data[index])

    def read(index: Slices) -> np.ndarray:
        return attributes.decode(read_raw(index))

    def missing_reason(index: Slices) -> str:
        return attributes.missing_reason(read_raw(index))

    dtype = attributes.dtype(stored.dtype)
    return Array(name, tuple(variable.data.shape), dtype, read, attributes=attributes, missing_reason=missing_reason)


def _texts(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with their bytes as text."""
    return {
        name: value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else value
        for name, value in attributes.items()
    }
