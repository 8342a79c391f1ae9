"""Readers of HDF5 without a convention of its own: plain files, and MATLAB v7.3, whose axes stand in reverse order.

Datasets are read in parts, never whole. Only what stands in the file itself is read: links to other files are not followed.
Must not know equations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.generate.layouts.faults import readable, with_filters
from pidscale.generate.layouts.said import is_bare_dimension, said_of
from pidscale.generate.layouts.source import Array, Slices, Source, sorted_out


def open_file(path: Path, layout: str) -> Any:
    """The open h5py file; it stays open for as long as its arrays are used."""
    with readable(path, layout):
        import h5py

        return h5py.File(path, "r")


def own(path: Path, dataset: Any) -> Any:
    """The dataset, if its numbers are in this file."""
    if dataset.external or dataset.is_virtual:
        raise UserError(
            f"{path}: dataset '{dataset.name}' takes its numbers from other files; write them into this one"
        )
    return dataset


def is_netcdf(dataset: Any) -> bool:
    """Whether the netCDF library wrote the file of a dataset."""
    return "_NCProperties" in dataset.file.attrs


def numbers(path: Path, dataset: Any, index: Any = ()) -> np.ndarray:
    """A part of a dataset as the numbers that are meant, nan where the file declares a value missing."""
    part = np.asarray(with_filters(path, own(path, dataset))[index])
    return said_of(dataset, is_netcdf(dataset)).decode(part)


def stored(path: Path, dataset: Any, name: str, axes: str = "") -> Array:
    """A dataset in the order in which HDF5 has its axes."""
    own(path, dataset)
    said = said_of(dataset, is_netcdf(dataset))

    def read(index: Slices) -> np.ndarray:
        return said.decode(np.asarray(with_filters(path, dataset)[index]))

    def why(index: Slices) -> str:
        return said.why(with_filters(path, dataset)[index])

    return Array(name, tuple(dataset.shape), said.dtype(dataset.dtype), read, axes, said, why)


def open_plain(path: Path) -> Source:
    """Every numeric dataset of a file, by its path in it; dims of netCDF that have no values of their own are none."""
    import h5py

    found: dict[str, Array] = {}

    def take(name: str, item: Any) -> None:  # hard links only: others may leave the file
        plain = isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in "biuf"
        if plain and not is_bare_dimension(item):
            found[name] = stored(path, item, name)

    file = open_file(path, "hdf5")
    with readable(path, "hdf5"):
        file.visititems(take)
    return sorted_out(path, "hdf5", found)


def open_matlab73(path: Path) -> Source:
    """Numeric and logical variables of a MATLAB v7.3 file, in MATLAB's own order of axes."""
    import h5py

    found: dict[str, Array] = {}
    file = open_file(path, "mat73")
    with readable(path, "mat73"):
        for name, item in file.items():
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
                continue
            kind = item.attrs.get("MATLAB_class", b"double")
            kind = kind.decode() if isinstance(kind, bytes) else str(kind)
            if kind not in ("char", "cell", "struct") and not item.attrs.get("MATLAB_empty", 0):
                found[name] = _reversed(path, item, name, kind == "logical")
    return sorted_out(path, "mat73", found)


def _reversed(path: Path, dataset: Any, name: str, logical: bool) -> Array:
    own(path, dataset)

    def read(index: Slices) -> np.ndarray:
        values = with_filters(path, dataset)[tuple(reversed(index))].transpose()
        return values.astype(bool) if logical else values

    return Array(name, tuple(reversed(dataset.shape)), np.dtype(bool) if logical else dataset.dtype, read)
