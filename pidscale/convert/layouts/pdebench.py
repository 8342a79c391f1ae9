"""Reader of HDF5 files as PDEBench (Takamoto et al., 2022) writes them. Must not know the code of our equations.

Darcy:               nu [N, X, Y], tensor [N, 1, X, Y], x-coordinate, y-coordinate (cell centres), attribute beta (the source)
Burgers and others:  tensor [N, T, X], x-coordinate (cell centres), t-coordinate (one longer than T), attribute Nu; the
                     equation has Nu / pi before u_xx
Reaction-diffusion:  a group 0000, 0001, ... for each sample: data [T, Y, X, 2], grid/x, grid/y, grid/t, attribute config
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.attributes import Attributes, as_text, attributes_of
from pidscale.convert.layouts.faults import file_errors
from pidscale.convert.layouts.hdf5 import dataset_array, is_netcdf, open_file, read_numbers, refuse_links
from pidscale.convert.layouts.source import Array, Slices, Source, same_coordinates

_COORDINATES = {"x": "x-coordinate", "y": "y-coordinate"}


def looks_like(file: Any) -> bool:
    """Return whether an open HDF5 file has this layout."""
    if "tensor" in file and any(name in file for name in ("nu", "t-coordinate", "x-coordinate")):
        return True
    first = next(iter(file), "")
    return first.isdigit() and "data" in file[first] and "grid" in file[first]


def open_pdebench(path: Path) -> Source:
    """Open a file in any of the three forms.

    Args:
        path: The file.

    Returns:
        The open file.

    Raises:
        UserError: The file has none of the forms, links to other files, or groups that differ.
    """
    file = open_file(path, "pdebench")
    with file_errors(path, "pdebench"):
        if not looks_like(refuse_links(path, file)):
            raise UserError(
                f"{path}: neither 'tensor' with coordinates nor groups 0000, 0001, ... with 'data' and 'grid', so not "
                "written by PDEBench; set layout=hdf5 and name its channels"
            )
        if "tensor" not in file:
            return _open_groups(path, file)
        return _open_tensor(path, file)


def _open_tensor(path: Path, file: Any) -> Source:
    """Open a file with all samples in one dataset."""
    coordinates = {axis: read_numbers(path, file[name]) for axis, name in _COORDINATES.items() if name in file}
    lines = {"t": "t-coordinate", **_COORDINATES}
    attributes = _attributes({key: file[name] for key, name in lines.items() if name in file})
    tensor = file["tensor"]
    axes = {3: "NTX", 4: "NTXY", 5: "NTXYS"}.get(tensor.ndim, "")
    arrays = {"tensor": dataset_array(path, tensor, "tensor", axes)}
    scalars: dict[str, np.ndarray] = {}
    if "nu" in file:  # a steady equation
        arrays["nu"] = dataset_array(path, file["nu"], "nu", "NXY")
        if "beta" in file.attrs:
            scalars["source"] = np.asarray(file.attrs["beta"]).reshape(())
        return Source(path, "pdebench", arrays, scalars, None, coordinates, attributes=attributes)
    times = read_numbers(path, file["t-coordinate"])[: tensor.shape[1]] if "t-coordinate" in file else None
    notes: tuple[str, ...] = ()
    if "Nu" in file.attrs:
        nu = float(np.asarray(file.attrs["Nu"]).reshape(()))
        scalars["viscosity"] = np.asarray(float(f"{nu / math.pi:.6g}"))
        notes = (f"PDEBench's equation has Nu / pi before u_xx: Nu={nu:g} is viscosity={nu / math.pi:.6g}",)
    return Source(path, "pdebench", arrays, scalars, times, coordinates, notes=notes, attributes=attributes)


def _attributes(datasets: Mapping[str, Any]) -> dict[str, Attributes]:
    return {key: attributes_of(dataset, is_netcdf(dataset)) for key, dataset in datasets.items()}


def _open_groups(path: Path, file: Any) -> Source:
    """Open a file with a group for each sample."""
    names = sorted(name for name in file if name.isdigit())
    _check_groups(path, file, names)
    grid = file[names[0]]["grid"]
    coordinates = {axis: read_numbers(path, grid[axis]) for axis in ("x", "y") if axis in grid}
    times = read_numbers(path, grid["t"]) if "t" in grid else None
    arrays = {"data": _groups_array(path, file, names)}
    attributes = _attributes({key: grid[key] for key in ("t", "x", "y") if key in grid})
    scalars = _group_parameters(path, file, names)
    return Source(path, "pdebench", arrays, scalars, times, coordinates, attributes=attributes)


def _groups_array(path: Path, file: Any, names: list[str]) -> Array:
    """Return the datasets `data` of all groups as one array."""
    first = file[names[0]]["data"]
    shape = (len(names), *first.shape)

    def read(index: Slices) -> np.ndarray:
        chosen = range(*index[0].indices(len(names)))
        parts = [dataset_array(path, file[names[i]]["data"], "data") for i in chosen]
        for i, part in zip(chosen, parts, strict=True):
            if part.shape != shape[1:]:
                raise UserError(
                    f"{path}: group {names[i]} has data {list(part.shape)}, group {names[0]} {list(shape[1:])}"
                )
        return np.stack([part.read(index[1:]) for part in parts])

    def missing_reason(index: Slices) -> str:
        return dataset_array(path, file[names[index[0].start]]["data"], "data").missing_reason(index[1:])

    array = dataset_array(path, first, "data", {5: "NTYXS", 4: "NTXS"}.get(len(shape), ""))
    unsupported = (line for name in names for line in attributes_of(file[name]["data"]).unsupported)
    attributes = replace(array.attributes, unsupported=tuple(dict.fromkeys(unsupported)))
    return replace(array, attributes=attributes, shape=shape, read=read, missing_reason=missing_reason)


def _check_groups(path: Path, file: Any, names: list[str]) -> None:
    """Raise UserError if coordinates, units or packing of a group differ from the first: a set has one of each."""

    def describe(group: Any) -> dict[str, tuple[str, np.ndarray]]:
        lines = {f"grid/{axis}": group["grid"][axis] for axis in ("t", "x", "y") if axis in group["grid"]}
        units = {name: (attributes_of(line).unit, read_numbers(path, line)) for name, line in lines.items()}
        return {**units, "data": (repr(replace(attributes_of(group["data"]), unsupported=())), np.zeros(0))}

    first = describe(file[names[0]])
    for name in names[1:]:
        other = describe(file[name])
        for part in first.keys() | other.keys():
            expected = first.get(part)
            found = other.get(part)
            if (
                expected is None
                or found is None
                or expected[0] != found[0]
                or not same_coordinates(expected[1], found[1])
            ):
                raise UserError(
                    f"{path}: group {name}: {part} differs from that of group {names[0]} in its numbers or attributes; a set "
                    "has one, so convert such groups into another set"
                )


def _group_parameters(path: Path, file: Any, names: list[str]) -> dict[str, np.ndarray]:
    """Return the equation's parameters from the `config` (YAML) of each group: [], or [N] if groups differ."""
    every = [_parameters(as_text(file[name].attrs.get("config", ""))) for name in names]
    for name, one in zip(names, every, strict=True):
        if one.keys() != every[0].keys():
            only = min(one.keys() ^ every[0].keys())
            raise UserError(f"{path}: group {name}: its config and that of group {names[0]} do not both have {only}")
    rows = {key: np.asarray([one[key] for one in every]) for key in every[0]}
    return {key: row[0].reshape(()) if (row == row[0]).all() else row for key, row in rows.items()}


def _parameters(config: str) -> dict[str, float]:
    names = {"Du": "diffusion_u", "Dv": "diffusion_v", "k": "source"}
    found = re.findall(r"^\s*(Du|Dv|k):\s*([-+0-9.eE]+)\s*$", config, flags=re.MULTILINE)
    return {names[name]: float(value) for name, value in found}
