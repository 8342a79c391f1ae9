"""Files as other programs write them, with known fields: the input of the tests of conversion."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from pidscale.config import UserError
from pidscale.convert.convert import convert
from pidscale.convert.request import parse_request
from pidscale.pde.burgers import Burgers
from pidscale.pde.darcy import Darcy
from pidscale.pde.wave import Wave

DARCY = Darcy()
BURGERS = Burgers()
WAVE = Wave.from_params({"frames": 4, "duration": 0.3})


def converted(source, out, pde="darcy", given=None, **arguments):
    """Convert with arguments key=value; a dict gives the arguments of a group."""
    words = [f"source={source}", f"out={out}"]
    for key, value in arguments.items():
        words += [f"{key}.{k}={v}" for k, v in value.items()] if isinstance(value, dict) else [f"{key}={value}"]
    return convert(parse_request(words), pde, given or {})


def refused(path, pde="darcy", given=None, **arguments):
    """Return the one line that a conversion fails with; nothing is written."""
    out = path.parent / "set"
    with pytest.raises(UserError) as error:
        converted(path, out, pde, given, **arguments)
    line = str(error.value)
    assert "\n" not in line and not list(out.glob("*.tar")) and not (out / "manifest.json").exists()
    return line


def has(line, *parts):
    """Assert that a line contains all parts."""
    assert not [part for part in parts if part not in line], line


def npz(folder, **arrays):
    """Write arrays to a.npz, which is overwritten by the next call."""
    return plain(folder / "a.npz", **arrays)


def truths(pde, grid, count, seed=7):
    """Return samples of an equation, float32 [N, C, Y, X]."""
    return np.stack([pde.sample(seed, i, grid)[0] for i in range(count)]).astype(np.float32)


def matlab73(path: Path, **arrays):
    """Write MATLAB v7.3: a user block of 512 bytes with a header, reversed axes, a class for each variable."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            stored = values.astype(np.uint8) if values.dtype == bool else values
            dataset = file.create_dataset(name, data=np.ascontiguousarray(stored.transpose()), compression="gzip")
            kind = {"bool": "logical", "float64": "double", "float32": "single"}[str(values.dtype)]
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
            if kind == "logical":
                dataset.attrs["MATLAB_int_decode"] = np.int32(1)
        note = file.create_dataset("note", data=np.frombuffer("made".encode("utf-16le"), np.uint16)[:, None])
        note.attrs["MATLAB_class"] = np.bytes_("char")
        file.create_group("#refs#")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(116))
        file.write(bytes(8) + b"\x00\x02IM")
    return path


def pdebench_darcy(path: Path, permeability, pressure, beta=1.0):
    """Write nu [N, X, Y], tensor [N, 1, X, Y] and coordinates of cell centres."""
    height, width = permeability.shape[1:]
    with h5py.File(path, "w") as file:
        file["nu"] = permeability.transpose(0, 2, 1)
        file["tensor"] = pressure.transpose(0, 2, 1)[:, None]
        file["x-coordinate"] = ((np.arange(width) + 0.5) / width).astype(np.float32)
        file["y-coordinate"] = ((np.arange(height) + 0.5) / height).astype(np.float32)
        file.attrs["beta"] = beta
    return path


def pdebench_burgers(path: Path, velocity, duration=1.0, nu=None):
    """Write tensor [N, T, X], one time more than T, cell centres, Nu."""
    _, times, width = velocity.shape
    with h5py.File(path, "w") as file:
        file["tensor"] = velocity
        file["t-coordinate"] = (np.arange(times + 1) * duration / (times - 1)).astype(np.float32)
        file["x-coordinate"] = ((np.arange(width) + 0.5) / width).astype(np.float32)
        if nu is not None:
            file.attrs["Nu"] = nu
    return path


def pdebench_groups(path: Path, frames, duration, config=True):
    """Write a group for each sample of frames [N, T, S, Y, X]: data [T, Y, X, S], grid, and the settings as YAML."""
    _, times, _, height, width = frames.shape
    with h5py.File(path, "w") as file:
        for i, one in enumerate(frames):
            group = file.create_group(f"{i:04d}")
            group.create_dataset("data", data=one.transpose(0, 2, 3, 1), compression="lzf")
            group["grid/x"] = ((np.arange(width) + 0.5) * 2 / width - 1).astype(np.float32)
            group["grid/y"] = ((np.arange(height) + 0.5) * 2 / height - 1).astype(np.float32)
            group["grid/t"] = np.linspace(0, duration, times, dtype=np.float32)
            if config:
                group.attrs["config"] = "sim:\n  Du: 0.001\n  Dv: 0.005\n  k: 0.005\n  t: 5\nplot:\n  dim: 2\n"
    return path


def well(path: Path, fields, duration=1.0, scalars=None, edges="PERIODIC", end=False):
    """Write fields [N, T, Y, X] or [N, Y, X] as t0_fields [.., X, Y]. end: whether coordinates include both ends."""
    first = next(iter(fields.values()))
    height, width = first.shape[-2:]
    times = max(one.shape[1] if one.ndim == 4 else 1 for one in fields.values())
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="made", grid_type="cartesian", n_spatial_dims=2, n_trajectories=len(first))
        file.attrs["simulation_parameters"] = np.array(list(scalars or {}), dtype=h5py.string_dtype())
        dims = file.create_group("dimensions")
        dims.attrs["spatial_dims"] = np.array(["x", "y"], dtype=h5py.string_dtype())
        dims["time"] = np.linspace(0, duration, times, dtype=np.float32)
        for name, points in (("x", width), ("y", height)):
            dims[name] = np.linspace(0, 1, points, endpoint=end, dtype=np.float32)
        for name in dims:
            dims[name].attrs.update(sample_varying=False, time_varying=False)
        group = file.create_group("t0_fields")
        group.attrs["field_names"] = np.array(list(fields), dtype=h5py.string_dtype())
        for name, values in fields.items():
            group[name] = values.swapaxes(-1, -2)
            flags = {"sample_varying": True, "time_varying": values.ndim == 4, "dim_varying": [True, True]}
            group[name].attrs.update(flags)
        for empty in ("t1_fields", "t2_fields"):
            file.create_group(empty).attrs["field_names"] = np.array([], dtype="S1")
        for name, values in (scalars or {}).items():
            file[f"scalars/{name}"] = values
            file[f"scalars/{name}"].attrs.update(sample_varying=np.ndim(values) == 1, time_varying=False)
        for axis in ("x", "y"):
            boundary = file.create_group(f"boundary_conditions/{axis}_boundary")
            boundary.attrs.update(bc_type=edges, sample_varying=False, time_varying=False)
            boundary.attrs["associated_dims"] = np.array([axis], dtype=h5py.string_dtype())
    return path


def plain(path: Path, **arrays):
    """Write named arrays as npz, MATLAB v5, HDF5 or .pt, chosen by the ending of the file."""
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".mat":
        savemat(path, arrays)
    elif path.suffix == ".pt":
        torch.save({name: torch.from_numpy(np.asarray(values)) for name, values in arrays.items()}, path)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values)
    return path
