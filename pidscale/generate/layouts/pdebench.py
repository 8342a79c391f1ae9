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
from pidscale.generate.layouts.faults import readable
from pidscale.generate.layouts.hdf5 import is_netcdf, numbers, open_file, stored
from pidscale.generate.layouts.said import Said, said_of, text
from pidscale.generate.layouts.source import Slices, Source

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
        if not looks_like(file):
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
    grid = {axis: numbers(path, first["grid"][axis]) for axis in ("x", "y") if axis in first["grid"]}
    times = numbers(path, first["grid"]["t"]) if "t" in first["grid"] else None
    whole = stored(path, first["data"], "data", axes)
    found = {"data": replace(whole, shape=shape, read=read, why=why)}
    said = _said({key: first["grid"][key] for key in ("t", "x", "y") if key in first["grid"]})
    return Source(path, "pdebench", found, _configured(text(first.attrs.get("config", ""))), times, grid, said=said)


def _configured(config: str) -> dict[str, np.ndarray]:
    """The numbers of a group's `config` (YAML) that are parameters of the reaction-diffusion equation."""
    names = {"Du": "diffusion_u", "Dv": "diffusion_v", "k": "source"}
    found = re.findall(r"^\s*(Du|Dv|k):\s*([-+0-9.eE]+)\s*$", config, flags=re.MULTILINE)
    return {names[name]: np.asarray(float(value)) for name, value in found}
