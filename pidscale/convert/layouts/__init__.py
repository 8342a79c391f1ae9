"""Layouts of foreign files: detected from their first bytes and their contents, or named. Must not know equations."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.convert.layouts import arrays, hdf5, matlab5, netcdf3, pdebench, well, zarr
from pidscale.convert.layouts.faults import file_errors, pickle_refusal
from pidscale.convert.layouts.source import Source

READERS: dict[str, Callable[[Path], Source]] = {
    "npy": arrays.open_npy,
    "npz": arrays.open_npz,
    "mat5": matlab5.open_matlab5,
    "mat73": hdf5.open_matlab73,
    "hdf5": hdf5.open_plain,
    "pdebench": pdebench.open_pdebench,
    "well": well.open_well,
    "netcdf3": netcdf3.open_netcdf3,
    "zarr": zarr.open_zarr,
    "pt": arrays.open_torch,
}
_HDF5_LAYOUTS = ("hdf5", "mat73", "pdebench", "well")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_source(path: Path, layout: str | None = None) -> Source:
    """Open a file.

    Args:
        path: The file.
        layout: The name of its layout; None to detect it.

    Returns:
        The open file.

    Raises:
        UserError: The file is missing, empty, truncated or pickled, or its layout is unknown or another than the named one.
    """
    if layout is not None and layout not in READERS:
        raise UserError(f"layout={layout}: unknown; expected one of {', '.join(READERS)}")
    if not path.exists():
        raise UserError(f"source={path}: no such file")
    if not path.is_file() and not zarr.is_store(path):
        raise UserError(
            f"source={path}: not a file; name one file of npy, npz, MATLAB, HDF5, netCDF or .pt, or a zarr store"
        )
    found = _detect(path)
    if layout is None:
        return READERS[found](path)
    if layout != found and not (layout in _HDF5_LAYOUTS and found in _HDF5_LAYOUTS):
        raise UserError(f"{path}: layout={layout}, but the file is {found}; omit layout or set layout={found}")
    return READERS[layout](path)


def _detect(path: Path) -> str:
    """Return the layout of a file."""
    if path.is_dir():
        return "zarr"
    if path.stat().st_size == 0:
        raise UserError(f"{path}: empty, 0 bytes; download or write the file again")
    with file_errors(path, "a file"), open(path, "rb") as file:
        head = file.read(1024)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04"):
        return _detect_zip(path)
    if head.startswith(b"MATLAB 5.0"):
        return "mat5"
    if head.startswith(_HDF5_SIGNATURE) or head[512:].startswith(_HDF5_SIGNATURE):
        return _detect_hdf5(path)
    if head[:3] == b"CDF":
        return "netcdf3"
    if path.suffix in (".pt", ".pth") and head[:1] == b"\x80":
        return "pt"  # older than the zip format
    if head[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
        raise UserError(pickle_refusal(path))
    raise UserError(f"{path}: none of the supported layouts ({', '.join(READERS)}); save its arrays as npz or HDF5")


def _detect_zip(path: Path) -> str:
    with file_errors(path, "npz or pt"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if zarr.is_zipped_store(names):
        return "zarr"
    if any(name.endswith("data.pkl") for name in names):
        return "pt"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise UserError(
        f"{path}: a zip file, but neither npz nor .pt nor a zarr store; unpack it and name the data file in it"
    )


def _detect_hdf5(path: Path) -> str:
    with hdf5.open_file(path, "HDF5") as file, file_errors(path, "HDF5"):
        if hdf5.external_links(file):
            return _detect_linked(file)
        if well.looks_like(file):
            return "well"
        if pdebench.looks_like(file):
            return "pdebench"
        return "mat73" if any("MATLAB_class" in item.attrs for item in file.values()) else "hdf5"


def _detect_linked(file: Any) -> str:
    """Return the layout of a file with links to other files from its names alone, so that no link is opened."""
    names = list(file)
    if "t0_fields" in names:
        return "well"
    if "tensor" in names or names[0].isdigit():
        return "pdebench"
    return "mat73" if any("MATLAB_class" in item.attrs for item in hdf5.own_items(file)) else "hdf5"
