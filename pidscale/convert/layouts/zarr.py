"""Reader of zarr stores, formats 2 and 3: folders, and zip files of them. Needs the package zarr, and no xarray.

Dims, packing and missing values are read as xarray writes them; arrays without names of dims are read too. Chunks are read
where they are needed. A codec that runs code of the file, such as numcodecs' pickle, is refused before anything is read.
Must not know equations.
"""

from __future__ import annotations

import base64
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.arrays import ONLY_ARRAY
from pidscale.convert.layouts.attributes import Attributes, Stored, read_attributes
from pidscale.convert.layouts.faults import file_errors
from pidscale.convert.layouts.source import Array, Slices, Source, build_source
from pidscale.plain import printable

METADATA = ("zarr.json", ".zgroup", ".zarray")
_CODECS = frozenset(
    {"bytes", "blosc", "zstd", "gzip", "zlib", "lz4", "lzma", "bz2", "delta", "shuffle", "bitround", "quantize",
     "fixedscaleoffset", "packbits", "astype", "transpose", "crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3",
     "sharding_indexed", "pcodec", "zfpy"}
)  # fmt: skip


def is_store(path: Path) -> bool:
    """Return whether a path is a folder that holds a zarr group or array."""
    return any((path / name).is_file() for name in METADATA)


def is_zipped_store(names: list[str]) -> bool:
    """Return whether these names of a zip file are those of a zarr store."""
    return any(PurePosixPath(name).name in METADATA for name in names)


def open_zarr(path: Path) -> Source:
    """Open every array of numbers by its path in the store.

    Args:
        path: The folder or the zip file.

    Returns:
        The source.

    Raises:
        UserError: The package zarr is missing, the store is damaged, or an array needs a codec that is not known as safe.
    """
    with file_errors(path, "zarr"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a bad store is reported by one line of our own
        try:
            import zarr
        except ImportError:
            raise UserError(f"{path}: zarr stores need a package of their own; pip install 'pidscale[zarr]'") from None
        if path.is_dir():
            found = zarr.open(str(path), mode="r", use_consolidated=False)
        else:
            found = zarr.open(
                zarr.storage.ZipStore(path, mode="r"), path=_root_of(path), mode="r", use_consolidated=False
            )
        if isinstance(found, zarr.Array):
            arrays = {ONLY_ARRAY: _array(path, ONLY_ARRAY, found)} if found.dtype.kind in "biuf" else {}
        else:
            members = sorted(found.members(max_depth=None))
            arrays = {
                name: _array(path, name, one)
                for name, one in members
                if isinstance(one, zarr.Array) and one.dtype.kind in "biuf"
            }
        return build_source(path, "zarr", arrays)


def _root_of(path: Path) -> str:
    """Return the folder in a zip file that is the store, empty if it is the root."""
    with zipfile.ZipFile(path) as archive:
        found = [PurePosixPath(name) for name in archive.namelist()]
    top = min((one for one in found if one.name in METADATA), key=lambda one: (len(one.parts), str(one)))
    return "" if str(top.parent) == "." else str(top.parent)


def _array(path: Path, name: str, stored: Any) -> Array:
    """Return an open zarr array as an Array.

    Args:
        path: The store, for messages.
        name: The name of the array.
        stored: The zarr array.

    Returns:
        The array; nothing of it is read yet.

    Raises:
        UserError: It needs a codec that is not known as safe.
    """
    described = stored.metadata.to_dict()
    unknown = sorted({codec for codec in _codecs(described) if codec.removeprefix("numcodecs.") not in _CODECS})
    if unknown:
        raise UserError(
            f"{path}: array '{printable(name)[:80]}' is stored with the codec {printable(unknown[0])[:40]!r}, which is not "
            "known as one that runs no code of the file; write it with another, such as zstd"
        )
    attributes = _attributes(path, name, stored, described)

    def read_raw(index: Slices) -> np.ndarray:
        return np.asarray(stored[index])

    def read(index: Slices) -> np.ndarray:
        return attributes.decode(read_raw(index))

    def missing_reason(index: Slices) -> str:
        return attributes.missing_reason(read_raw(index))

    dtype = attributes.dtype(stored.dtype)
    return Array(name, tuple(stored.shape), dtype, read, attributes=attributes, missing_reason=missing_reason)


def _codecs(described: Any) -> Iterator[str]:
    """Yield the name of every codec in the metadata of an array, those inside of shards too."""
    if isinstance(described, Mapping):
        for key in ("compressor", "filters", "codecs", "index_codecs", "configuration"):
            yield from _codecs(described.get(key))
        if "chunk_grid" not in described and "shape" not in described:  # a codec, not the array
            name = described.get("id", described.get("name"))
            yield from [str(name)] if name is not None else []
    elif isinstance(described, (list, tuple)):
        for one in described:
            yield from _codecs(one)


def _attributes(path: Path, name: str, stored: Any, described: Mapping[str, Any]) -> Attributes:
    """Return what a store says of the numbers of an array; names of dims that are no list raise a UserError."""
    attrs = dict(stored.attrs)
    fill = stored.metadata.fill_value
    if isinstance(attrs.get("_FillValue"), str) and stored.dtype.kind == "f":  # as xarray writes it into format 3
        attrs["_FillValue"] = struct.unpack("<d", base64.standard_b64decode(attrs["_FillValue"]))[0]
    packed = "scale_factor" in attrs or "add_offset" in attrs
    marks = fill is not None and (fill != 0 or packed)  # 0 is zarr's default, and then a number like any other
    if described["zarr_format"] == 2 and stored.dtype.kind != "b" and marks:
        attrs.setdefault("_FillValue", fill)
    dims = described.get("dimension_names") or attrs.pop("_ARRAY_DIMENSIONS", None) or ()
    if not isinstance(dims, (list, tuple)):
        raise UserError(
            f"{path}: array '{printable(name)[:80]}': _ARRAY_DIMENSIONS is {printable(repr(dims))[:80]}; expected a list of "
            "names, one for each dim"
        )
    dims = tuple(str(dim or "") for dim in dims)
    found = read_attributes(Stored(name, attrs, stored.dtype), dims if len(dims) == len(stored.shape) else ())
    declared = [value for values in found.missing.values() for value in values]
    absent = stored.nchunks - stored.nchunks_initialized  # below 0 where the last shard is not full
    if absent > 0 and fill is not None and fill == fill and fill not in declared:
        line = f"array '{name}' has {absent} of {stored.nchunks} chunks that are not stored, which zarr reads as {fill}: copy"
        found = replace(found, unsupported=(*found.unsupported, f"{line} the store again"))
    return found
