"""Reader of HDF5 files in the format of The Well (Ohana et al., 2024). Must not know our equations' code.

t0_fields/NAME [N, T, X, Y] (dims left away where sample_varying, time_varying or dim_varying are false), dimensions/time and
one coordinate for each of spatial_dims, scalars/NAME, boundary_conditions/*/bc_type. Their first place axis is x, ours is y.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.faults import readable, with_filters
from pidscale.convert.layouts.hdf5 import is_netcdf, numbers, open_file, own, without_links
from pidscale.convert.layouts.said import Said, said_of, text
from pidscale.convert.layouts.source import Array, Slices, Source


def looks_like(file: Any) -> bool:
    """Whether an open HDF5 file has this layout."""
    return "t0_fields" in file and "dimensions" in file


def open_well(path: Path) -> Source:
    """Scalar fields, and the components of vector fields as NAME_x, NAME_y."""
    file = open_file(path, "well")
    with readable(path, "well"):
        if not looks_like(without_links(path, file)):
            raise UserError(
                f"{path}: no groups 't0_fields' and 'dimensions', so not as The Well writes it; set layout=hdf5"
            )
        dims = [text(name) for name in file["dimensions"].attrs["spatial_dims"]]
        if len(dims) > 2 or not set(dims) <= {"x", "y"}:
            raise UserError(f"{path}: spatial_dims {dims}; expected x, or x and y")
        count = int(file.attrs["n_trajectories"])
        arrays = {name: _field(path, file["t0_fields"][name], name, dims, count) for name in file["t0_fields"]}
        for name in file.get("t1_fields", {}):
            for i, dim in enumerate(dims):
                arrays[f"{name}_{dim}"] = _field(path, file["t1_fields"][name], f"{name}_{dim}", dims, count, i)
        places = {dim: numbers(path, file["dimensions"][dim]).reshape(-1) for dim in dims}
        scalars, times = _scalars(path, file), _times(path, file)
        return Source(path, "well", arrays, scalars, times, places, _edges(file), said=_said(file, dims, scalars))


def _field(path: Path, dataset: Any, name: str, dims: list[str], count: int, component: int | None = None) -> Array:
    """A field with its sample axis put back where the file leaves it away, one component of a vector."""
    own(path, dataset)
    varying = [bool(v) for v in dataset.attrs["dim_varying"]]
    by_sample, by_time = bool(dataset.attrs["sample_varying"]), bool(dataset.attrs["time_varying"])
    places = "".join(dim.upper() for dim, varies in zip(dims, varying, strict=True) if varies)
    axes = "N" + "T" * by_time + places
    own_shape = tuple(dataset.shape[: len(axes) - (not by_sample)])
    shape = own_shape if by_sample else (count, *own_shape)

    said = said_of(dataset, is_netcdf(dataset))

    def raw(index: Slices) -> np.ndarray:
        end: tuple[Any, ...] = () if component is None else (component,)
        if by_sample:
            return np.asarray(with_filters(path, dataset)[(*index, *end)])
        values = np.asarray(with_filters(path, dataset)[(*index[1:], *end)])
        return np.broadcast_to(values, (len(range(*index[0].indices(count))), *values.shape))

    dtype = said.dtype(dataset.dtype)
    return Array(
        name, shape, dtype, lambda index: said.decode(raw(index)), axes, said, lambda index: said.why(raw(index))
    )


def _said(file: Any, dims: list[str], scalars: Mapping[str, np.ndarray]) -> dict[str, Said]:
    """What the file says of its coordinates and scalars."""
    lines = {"t": file["dimensions"]["time"], **{dim: file["dimensions"][dim] for dim in dims}}
    every = {**lines, **{name: file["scalars"][name] for name in scalars}}
    return {name: said_of(dataset, is_netcdf(dataset)) for name, dataset in every.items()}


def _scalars(path: Path, file: Any) -> dict[str, np.ndarray]:
    """Scalars [] or [N]; one that varies in time is no parameter and is left out."""
    found = {}
    for name, dataset in file.get("scalars", {}).items():
        if not dataset.attrs.get("time_varying", False) and dataset.dtype.kind in "biuf":
            values = numbers(path, dataset).reshape(-1)
            found[name] = values if dataset.attrs.get("sample_varying", False) else values[:1].reshape(())
    return found


def _times(path: Path, file: Any) -> np.ndarray | None:
    times = numbers(path, file["dimensions"]["time"])
    if times.ndim == 2:
        if not (times == times[:1]).all():
            raise UserError(f"{path}: dimensions/time varies between samples; a set has one time axis")
        times = times[0]
    return times


def _edges(file: Any) -> dict[str, str]:
    """What bounds each axis, as its name in lower case: periodic, wall or open."""
    edges = {}
    for group in file.get("boundary_conditions", {}).values():
        for dim in group.attrs.get("associated_dims", []):
            edges[text(dim)] = text(group.attrs.get("bc_type", "")).lower()
    return edges
