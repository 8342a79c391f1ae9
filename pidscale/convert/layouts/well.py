"""Reader of HDF5 files in the format of The Well (Ohana et al., 2024). Must not know the code of our equations.

t0_fields/NAME [N, T, X, Y] (without the dims for which sample_varying, time_varying or dim_varying is false),
dimensions/time and one coordinate for each of spatial_dims, scalars/NAME, boundary_conditions/*/bc_type. The first space axis
is x; ours is y.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.attributes import Attributes, as_text, attributes_of
from pidscale.convert.layouts.faults import file_errors, require_filters
from pidscale.convert.layouts.hdf5 import is_netcdf, open_file, read_numbers, refuse_external, refuse_links
from pidscale.convert.layouts.source import Array, Slices, Source


def looks_like(file: Any) -> bool:
    """Return whether an open HDF5 file has this layout."""
    return "t0_fields" in file and "dimensions" in file


def open_well(path: Path) -> Source:
    """Open scalar fields, and the components of vector fields as NAME_x and NAME_y.

    Args:
        path: The file.

    Returns:
        The open file.

    Raises:
        UserError: The file does not have this layout, has links to other files, or space dims other than x and y.
    """
    file = open_file(path, "well")
    with file_errors(path, "well"):
        if not looks_like(refuse_links(path, file)):
            raise UserError(
                f"{path}: no groups 't0_fields' and 'dimensions', so not a file of The Well; set layout=hdf5"
            )
        dims = [as_text(name) for name in file["dimensions"].attrs["spatial_dims"]]
        if len(dims) > 2 or not set(dims) <= {"x", "y"}:
            raise UserError(f"{path}: spatial_dims {dims}; expected x, or x and y")
        count = int(file.attrs["n_trajectories"])
        arrays = {name: _field(path, file["t0_fields"][name], name, dims, count) for name in file["t0_fields"]}
        for name in file.get("t1_fields", {}):
            for i, dim in enumerate(dims):
                arrays[f"{name}_{dim}"] = _field(path, file["t1_fields"][name], f"{name}_{dim}", dims, count, i)
        coordinates = {dim: read_numbers(path, file["dimensions"][dim]).reshape(-1) for dim in dims}
        scalars = _scalars(path, file)
        times = _times(path, file)
        attributes = _attributes(file, dims, scalars)
        return Source(
            path, "well", arrays, scalars, times, coordinates, _boundary_conditions(file), attributes=attributes
        )


def _field(path: Path, dataset: Any, name: str, dims: list[str], count: int, component: int | None = None) -> Array:
    """Return a field, or one component of a vector field, with a sample axis even where the file has none."""
    refuse_external(path, dataset)
    varying = [bool(v) for v in dataset.attrs["dim_varying"]]
    by_sample = bool(dataset.attrs["sample_varying"])
    by_time = bool(dataset.attrs["time_varying"])
    space = "".join(dim.upper() for dim, varies in zip(dims, varying, strict=True) if varies)
    axes = "N" + "T" * by_time + space
    stored_shape = tuple(dataset.shape[: len(axes) - (not by_sample)])
    shape = stored_shape if by_sample else (count, *stored_shape)
    attributes = attributes_of(dataset, is_netcdf(dataset))

    def read_raw(index: Slices) -> np.ndarray:
        end: tuple[Any, ...] = () if component is None else (component,)
        if by_sample:
            return np.asarray(require_filters(path, dataset)[(*index, *end)])
        values = np.asarray(require_filters(path, dataset)[(*index[1:], *end)])
        return np.broadcast_to(values, (len(range(*index[0].indices(count))), *values.shape))

    def read(index: Slices) -> np.ndarray:
        return attributes.decode(read_raw(index))

    def missing_reason(index: Slices) -> str:
        return attributes.missing_reason(read_raw(index))

    return Array(name, shape, attributes.dtype(dataset.dtype), read, axes, attributes, missing_reason)


def _attributes(file: Any, dims: list[str], scalars: Mapping[str, np.ndarray]) -> dict[str, Attributes]:
    """Return the attributes of coordinates and scalars."""
    lines = {"t": file["dimensions"]["time"], **{dim: file["dimensions"][dim] for dim in dims}}
    every = {**lines, **{name: file["scalars"][name] for name in scalars}}
    return {name: attributes_of(dataset, is_netcdf(dataset)) for name, dataset in every.items()}


def _scalars(path: Path, file: Any) -> dict[str, np.ndarray]:
    """Return scalars [] or [N]; one that varies in time is not a parameter and is omitted."""
    found = {}
    for name, dataset in file.get("scalars", {}).items():
        if not dataset.attrs.get("time_varying", False) and dataset.dtype.kind in "biuf":
            values = read_numbers(path, dataset).reshape(-1)
            found[name] = values if dataset.attrs.get("sample_varying", False) else values[:1].reshape(())
    return found


def _times(path: Path, file: Any) -> np.ndarray | None:
    """Return the time coordinate [T]."""
    times = read_numbers(path, file["dimensions"]["time"])
    if times.ndim == 2:
        if not (times == times[:1]).all():
            raise UserError(f"{path}: dimensions/time varies between samples; a set has one time axis")
        times = times[0]
    return times


def _boundary_conditions(file: Any) -> dict[str, str]:
    """Return the boundary condition of each axis in lower case: periodic, wall or open."""
    found = {}
    for group in file.get("boundary_conditions", {}).values():
        for dim in group.attrs.get("associated_dims", []):
            found[as_text(dim)] = as_text(group.attrs.get("bc_type", "")).lower()
    return found
