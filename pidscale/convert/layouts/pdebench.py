"""Reader of HDF5 files as PDEBench (Takamoto et al., 2022) writes them. Must not know our equations' code.

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
from pidscale.convert.layouts.faults import readable
from pidscale.convert.layouts.hdf5 import is_netcdf, numbers, open_file, stored, without_links
from pidscale.convert.layouts.said import Said, said_of, text
from pidscale.convert.layouts.source import Slices, Source, same_line

_COORDINATE = {"x": "x-coordinate", "y": "y-coordinate"}


def looks_like(file: Any) -> bool:
    """Whether an open HDF5 file has this layout."""
    if "tensor" in file and any(name in file for name in ("nu", "t-coordinate", "x-coordinate")):
        return True
    first = next(iter(file), "")
    return first.isdigit() and "data" in file[first] and "grid" in file[first]


def open_pdebench(path: Path) -> Source:
    """Whichever of the three forms it is."""
    file = open_file(path, "pdebench")
    with readable(path, "pdebench"):
        if not looks_like(without_links(path, file)):
            raise UserError(
                f"{path}: neither 'tensor' with coordinates nor groups 0000, 0001, ... with 'data' and 'grid', so not as "
                "PDEBench writes it; set layout=hdf5 and name its channels"
            )
        if "tensor" not in file:
            return _groups(path, file)
        return _tensor(path, file)


def _tensor(path: Path, file: Any) -> Source:
    scalars: dict[str, np.ndarray] = {}
    notes: tuple[str, ...] = ()
    places = {axis: numbers(path, file[name]) for axis, name in _COORDINATE.items() if name in file}
    lines = {"t": "t-coordinate", **_COORDINATE}
    said = _said({key: file[name] for key, name in lines.items() if name in file})
    steady = "nu" in file
    tensor = file["tensor"]
    arrays = {"tensor": stored(path, tensor, "tensor", {3: "NTX", 4: "NTXY", 5: "NTXYS"}.get(tensor.ndim, ""))}
    if steady:
        arrays["nu"] = stored(path, file["nu"], "nu", "NXY")
        if "beta" in file.attrs:
            scalars["source"] = np.asarray(file.attrs["beta"]).reshape(())
        return Source(path, "pdebench", arrays, scalars, None, places, said=said)
    times = numbers(path, file["t-coordinate"])[: tensor.shape[1]] if "t-coordinate" in file else None
    if "Nu" in file.attrs:
        nu = float(np.asarray(file.attrs["Nu"]).reshape(()))
        scalars["viscosity"] = np.asarray(float(f"{nu / math.pi:.6g}"))
        notes = (f"PDEBench's equation has Nu / pi before u_xx: Nu={nu:g} is viscosity={nu / math.pi:.6g}",)
    return Source(path, "pdebench", arrays, scalars, times, places, notes=notes, said=said)


def _said(lines: Mapping[str, Any]) -> dict[str, Said]:
    return {key: said_of(dataset, is_netcdf(dataset)) for key, dataset in lines.items()}


def _groups(path: Path, file: Any) -> Source:
    names = sorted(name for name in file if name.isdigit())
    first = file[names[0]]
    shape = (len(names), *first["data"].shape)

    def read(index: Slices) -> np.ndarray:
        chosen = range(*index[0].indices(len(names)))
        parts = [stored(path, file[names[i]]["data"], "data") for i in chosen]
        for i, part in zip(chosen, parts, strict=True):
            if part.shape != shape[1:]:
                raise UserError(
                    f"{path}: group {names[i]} has data {list(part.shape)}, group {names[0]} {list(shape[1:])}"
                )
        return np.stack([part.read(index[1:]) for part in parts])

    def why(index: Slices) -> str:
        return stored(path, file[names[index[0].start]]["data"], "data").why(index[1:])

    axes = {5: "NTYXS", 4: "NTXS"}.get(len(shape), "")
    _check_alike(path, file, names)
    grid = {axis: numbers(path, first["grid"][axis]) for axis in ("x", "y") if axis in first["grid"]}
    times = numbers(path, first["grid"]["t"]) if "t" in first["grid"] else None
    whole = stored(path, first["data"], "data", axes)
    doubts = (doubt for name in names for doubt in said_of(file[name]["data"]).doubts)
    whole = replace(whole, said=replace(whole.said, doubts=tuple(dict.fromkeys(doubts))))
    found = {"data": replace(whole, shape=shape, read=read, why=why)}
    said = _said({key: first["grid"][key] for key in ("t", "x", "y") if key in first["grid"]})
    return Source(path, "pdebench", found, _configured(path, file, names), times, grid, said=said)


def _check_alike(path: Path, file: Any, names: list[str]) -> None:
    """UserError names a group whose lines, units or packing differ from those of the first: a set has only one of each."""

    def told(group: Any) -> dict[str, tuple[str, np.ndarray]]:
        lines = {f"grid/{axis}": group["grid"][axis] for axis in ("t", "x", "y") if axis in group["grid"]}
        units = {name: (said_of(line).unit, numbers(path, line)) for name, line in lines.items()}
        return {**units, "data": (repr(replace(said_of(group["data"]), doubts=())), np.zeros(0))}

    first = told(file[names[0]])
    for name in names[1:]:
        own = told(file[name])
        for what in first.keys() | own.keys():
            had, has = first.get(what), own.get(what)
            if had is None or has is None or had[0] != has[0] or not same_line(had[1], has[1]):
                raise UserError(
                    f"{path}: group {name}: {what} differs from that of group {names[0]} in its numbers or attributes; a set "
                    "has one, so convert such groups into a set of their own"
                )


def _configured(path: Path, file: Any, names: list[str]) -> dict[str, np.ndarray]:
    """The equation's parameters in the `config` (YAML) of each group: [], or [N] where they differ."""
    every = [_parameters(text(file[name].attrs.get("config", ""))) for name in names]
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
