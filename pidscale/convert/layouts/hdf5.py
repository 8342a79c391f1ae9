"""Readers of HDF5 without a convention of its own: plain files, and MATLAB v7.3, whose axes stand in reverse order.

Datasets are read in parts, never whole. Only what stands in the file itself is read: links to other files are not followed.
Must not know equations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.faults import readable, with_filters
from pidscale.convert.layouts.said import is_bare_dimension, of_truths, said_of
from pidscale.convert.layouts.source import Array, Slices, Source, sorted_out
from pidscale.plain import printable


def open_file(path: Path, layout: str) -> Any:
    """The open h5py file; it stays open for as long as its arrays are used."""
    with readable(path, layout):
        import h5py

        return h5py.File(path, "r")


def without_links(path: Path, group: Any) -> Any:
    """The group, if all that is in it stands in this file. UserError names a link to another file, which is not followed."""
    if linked := links(group):
        raise UserError(
            f"{path}: {printable(linked[0])[:80]!r} is a link to another file, which is not followed; write it into this one"
        )
    return group


def links(group: Any) -> list[str]:
    """Names in a group that lead to other files; none of them is opened."""
    import h5py

    found: list[str] = []

    def look(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            found.append(name)

    group.visititems_links(look)
    return found


def inside(group: Any) -> list[Any]:
    """What a group holds itself, without what its links name."""
    import h5py

    return [group[name] for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]


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
        passed = [
            f"'{printable(name)[:80]}' is a link to another file, which is not followed" for name in links(file)[:3]
        ]
    return sorted_out(path, "hdf5", found, tuple(passed))


def open_matlab73(path: Path) -> Source:
    """Numeric and logical variables of a MATLAB v7.3 file, in MATLAB's own order of axes."""
    import h5py

    found: dict[str, Array] = {}
    file = open_file(path, "mat73")
    with readable(path, "mat73"):
        for name, item in without_links(path, file).items():
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
                continue
            kind = item.attrs.get("MATLAB_class", b"double")
            kind = kind.decode() if isinstance(kind, bytes) else str(kind)
            if kind not in ("char", "cell", "struct") and not item.attrs.get("MATLAB_empty", 0):
                found[name] = _reversed(path, item, name, kind == "logical")
    return sorted_out(path, "mat73", found)


def _reversed(path: Path, dataset: Any, name: str, logical: bool) -> Array:
    own(path, dataset)
    said = said_of(dataset)
    said = replace(of_truths(said, name) if logical else said, dims=said.dims[::-1])

    def raw(index: Slices) -> np.ndarray:
        return np.asarray(with_filters(path, dataset)[tuple(reversed(index))]).transpose()

    def read(index: Slices) -> np.ndarray:
        return raw(index).astype(bool) if logical else said.decode(raw(index))

    dtype = np.dtype(bool) if logical else said.dtype(dataset.dtype)
    return Array(name, dataset.shape[::-1], dtype, read, said=said, why=lambda index: said.why(raw(index)))
