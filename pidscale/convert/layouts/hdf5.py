"""Readers of HDF5 without a convention of its own: plain files, and MATLAB v7.3, whose axes are stored in reverse order.

Datasets are read in parts, never whole. Only the contents of the file itself are read: links to other files are not followed.
Must not know equations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.attributes import attributes_of, boolean_attributes, is_bare_dimension
from pidscale.convert.layouts.faults import file_errors, require_filters
from pidscale.convert.layouts.source import Array, Slices, Source, build_source
from pidscale.plain import printable


def open_file(path: Path, layout: str) -> Any:
    """Open an HDF5 file with h5py; it stays open as long as its arrays are in use."""
    with file_errors(path, layout):
        import h5py

        return h5py.File(path, "r")


def refuse_links(path: Path, group: Any) -> Any:
    """Return a group that has no links to other files.

    Args:
        path: The file, for the message.
        group: An open h5py group.

    Returns:
        The same group.

    Raises:
        UserError: A name in the group is a link to another file.
    """
    if linked := external_links(group):
        raise UserError(
            f"{path}: {printable(linked[0])[:80]!r} is a link to another file, which is not followed; copy its data into "
            "this file"
        )
    return group


def external_links(group: Any) -> list[str]:
    """Return the names in a group that are links to other files; none of them is opened."""
    import h5py

    found: list[str] = []

    def collect(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            found.append(name)

    group.visititems_links(collect)
    return found


def own_items(group: Any) -> list[Any]:
    """Return the items of a group that lie in this file, without following links."""
    import h5py

    return [group[name] for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]


def refuse_external(path: Path, dataset: Any) -> Any:
    """Return a dataset whose values lie in this file.

    Args:
        path: The file, for the message.
        dataset: An open h5py dataset.

    Returns:
        The same dataset.

    Raises:
        UserError: The dataset is virtual or stored in other files.
    """
    if dataset.external or dataset.is_virtual:
        raise UserError(f"{path}: dataset '{dataset.name}' stores its numbers in other files; copy them into this file")
    return dataset


def is_netcdf(dataset: Any) -> bool:
    """Return whether the netCDF library wrote the file of a dataset."""
    return "_NCProperties" in dataset.file.attrs


def read_numbers(path: Path, dataset: Any, index: Any = ()) -> np.ndarray:
    """Return a part of a dataset as numbers: unpacked, NaN where the file declares a value missing."""
    part = np.asarray(require_filters(path, refuse_external(path, dataset))[index])
    return attributes_of(dataset, is_netcdf(dataset)).decode(part)


def dataset_array(path: Path, dataset: Any, name: str, axes: str = "") -> Array:
    """Return a dataset as an Array, its axes in the order of the file.

    Args:
        path: The file, for messages.
        dataset: An open h5py dataset.
        name: The name of the array.
        axes: One letter for each dim if the layout defines them, empty otherwise.

    Returns:
        The array; nothing of it is read yet.
    """
    refuse_external(path, dataset)
    attributes = attributes_of(dataset, is_netcdf(dataset))

    def read(index: Slices) -> np.ndarray:
        return attributes.decode(np.asarray(require_filters(path, dataset)[index]))

    def missing_reason(index: Slices) -> str:
        return attributes.missing_reason(require_filters(path, dataset)[index])

    dtype = attributes.dtype(dataset.dtype)
    return Array(name, tuple(dataset.shape), dtype, read, axes, attributes, missing_reason)


def open_plain(path: Path) -> Source:
    """Open every numeric dataset of a file, by its path in the file; netCDF dimensions without values are no arrays."""
    import h5py

    found: dict[str, Array] = {}

    def collect(name: str, item: Any) -> None:  # called for hard links only: others may lead out of the file
        numeric = isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind in "biuf"
        if numeric and not is_bare_dimension(item):
            found[name] = dataset_array(path, item, name)

    file = open_file(path, "hdf5")
    with file_errors(path, "hdf5"):
        file.visititems(collect)
        notes = [
            f"'{printable(name)[:80]}' is a link to another file, which is not followed"
            for name in external_links(file)[:3]
        ]
    return build_source(path, "hdf5", found, tuple(notes))


def open_matlab73(path: Path) -> Source:
    """Open numeric and logical variables of a MATLAB v7.3 file, in MATLAB's own order of axes."""
    import h5py

    found: dict[str, Array] = {}
    file = open_file(path, "mat73")
    with file_errors(path, "mat73"):
        for name, item in refuse_links(path, file).items():
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf":
                continue
            kind = item.attrs.get("MATLAB_class", b"double")
            kind = kind.decode() if isinstance(kind, bytes) else str(kind)
            if kind not in ("char", "cell", "struct") and not item.attrs.get("MATLAB_empty", 0):
                found[name] = _reversed_array(path, item, name, kind == "logical")
    return build_source(path, "mat73", found)


def _reversed_array(path: Path, dataset: Any, name: str, logical: bool) -> Array:
    """Return a dataset as an Array with its axes in reverse order."""
    refuse_external(path, dataset)
    stored = attributes_of(dataset)
    attributes = replace(boolean_attributes(stored, name) if logical else stored, dims=stored.dims[::-1])

    def read_raw(index: Slices) -> np.ndarray:
        return np.asarray(require_filters(path, dataset)[tuple(reversed(index))]).transpose()

    def read(index: Slices) -> np.ndarray:
        return read_raw(index).astype(bool) if logical else attributes.decode(read_raw(index))

    def missing_reason(index: Slices) -> str:
        return attributes.missing_reason(read_raw(index))

    dtype = np.dtype(bool) if logical else attributes.dtype(dataset.dtype)
    shape = dataset.shape[::-1]
    return Array(name, shape, dtype, read, attributes=attributes, missing_reason=missing_reason)
