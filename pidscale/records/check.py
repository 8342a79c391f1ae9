"""Checks of a set: whether its files are those of its manifest, and its manifest the one that a run wants.

The first finding is raised, in one line. Must not know equations, ranks or torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.plain import shown
from pidscale.records.format import ROW_BLOCK, VERSION, index_name
from pidscale.records.json_checks import canonical, parsed
from pidscale.records.manifest import Manifest, ShardEntry
from pidscale.records.stores.base import Store, Unreachable, sha256_of
from pidscale.records.stores.opening import open_store

_AGAIN = "restore it, or delete manifest.json and make the set again (intact shards are kept)"
_REPAIR = "restore it, or write it again from the tar: `pidscale shards repair-index`"


def load_manifest(root: str | Path | Store) -> Manifest:
    """Read the manifest of a set.

    Args:
        root: The folder of the set, its address, or its store.

    Returns:
        The manifest, with every value checked.

    Raises:
        UserError: It is missing, cannot be read, or is not a manifest.
    """
    store = open_store(root)
    where = store.where("manifest.json")
    try:
        data = store.read("manifest.json")
    except OSError as error:
        store.sizes()  # has a better message if the folder does not exist
        found = "missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise UserError(
            f"{where}: {found}, so this is not a finished shard set; finish one in a folder with `pidscale make-shards`"
        ) from None
    return Manifest.from_json(parsed(data, where), where)


def check_sizes(store: Store, entries: Iterable[ShardEntry]) -> None:
    """Check that shards and their indices exist, and that tars have their sizes. One listing.

    Args:
        store: The store of the set.
        entries: The shards to check.

    Raises:
        UserError: A file is missing or of another size; the message names it.
    """
    sizes = store.sizes()
    for entry in entries:
        for name, remedy in ((entry.name, _AGAIN), (index_name(entry.name), _REPAIR)):
            if name not in sizes:
                raise UserError(f"{store.where(name)}: missing, but manifest.json lists it; {remedy}")
        if sizes[entry.name] != entry.bytes:
            raise UserError(
                f"{store.where(entry.name)}: {sizes[entry.name]} bytes, manifest.json says {entry.bytes} bytes: truncated or "
                f"replaced; {_AGAIN}"
            )


def read_index(store: Store, entry: ShardEntry) -> list[Any]:
    """Read the index of a shard.

    Args:
        store: The store of the set.
        entry: The shard as the manifest lists it.

    Returns:
        The samples that the index lists, parsed but not checked (see `checked_sample`).

    Raises:
        UserError: The index is missing or not the one that the manifest lists; the message names it.
        Unreachable: This process may not read it.
    """
    name = index_name(entry.name)
    where = store.where(name)
    try:
        data = store.read(name)
        if hashlib.sha256(data).hexdigest() != entry.index_sha256 and store.discard_damaged(name):
            data = store.read(name)
    except FileNotFoundError:
        raise UserError(f"{where}: missing, but manifest.json lists it; {_REPAIR}") from None
    except PermissionError:
        raise Unreachable(f"{where}: this run may not read it; change its permissions") from None
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or type(error).__name__}; {_AGAIN}") from None
    if hashlib.sha256(data).hexdigest() != entry.index_sha256:
        raise UserError(f"{where}: SHA-256 differs from manifest.json, so it was changed; {_REPAIR}")
    listed = parsed(data, where)
    if not isinstance(listed, dict) or (listed.get("version"), listed.get("shard")) != (VERSION, entry.name):
        raise UserError(f"{where}: not an index of version {VERSION} of {entry.name}; {_AGAIN}")
    samples = listed.get("samples")
    count = len(samples) if isinstance(samples, list) else 0
    if count != entry.samples:
        raise UserError(f"{where}: lists {count} samples, manifest.json says {entry.samples}; {_AGAIN}")
    return list(samples or [])


def check_contents(store: Store, entry: ShardEntry) -> None:
    """Read every byte of a shard, and compare its SHA-256 with that of the manifest.

    Args:
        store: The store of the set.
        entry: The shard as the manifest lists it.

    Raises:
        UserError: The SHA-256 differs.
    """
    try:
        same = sha256_of(store, entry.name, entry.bytes) == entry.sha256
    except ValueError:
        same = False
    if not same:
        raise UserError(
            f"{store.where(entry.name)}: SHA-256 differs from manifest.json, so its bytes changed; {_AGAIN}"
        )


def check_wanted(
    manifest: Manifest, root: str | Path | Store, equation: str | None = None, grid: Mapping[str, Any] | None = None
) -> None:
    """Check a manifest against what a run is configured for.

    Args:
        manifest: The manifest.
        root: The folder of the set, its address, or its store, for messages.
        equation: The name of the equation; not compared if None.
        grid: Keys of the grid as the manifest has them; only these are compared.

    Raises:
        UserError: The equation or a key of the grid differs.
    """
    where = open_store(root).where("manifest.json")
    if equation is not None and manifest.equation != equation:
        made = f"made for equation '{manifest.equation}'"
        raise UserError(f"{where}: {made}, but the run is of '{equation}'; change data.path or pde.name")
    for key, wanted in (grid or {}).items():
        found = manifest.grid.get(key)
        if canonical(found) != canonical(wanted):
            made = f"made for grid {key} {found}"
            raise UserError(
                f"{where}: {made}, but the run has {wanted}; change data.path, or the grid of the run (pde.points)"
            )


def check_set(manifest: Manifest, root: str | Path | Store, contents: bool = False) -> None:
    """Check the files of a set against its manifest; a file that differs raises a UserError that names it.

    Args:
        manifest: The manifest.
        root: The folder of the set, its address, or its store.
        contents: Whether to check every byte, not only sizes and indices.
    """
    store = open_store(root)
    check_sizes(store, manifest.entries)
    for entry in manifest.entries:
        read_index(store, entry)
        if contents:
            check_contents(store, entry)


def checked_sample(
    sample: dict[str, Any], key: str, shape: tuple[int, int, int], room: int
) -> tuple[int, list[int], dict[str, Any]]:
    """Check what an index says of a sample. Missing keys raise a KeyError, values of the wrong type a TypeError.

    Args:
        sample: The sample, as the index lists it.
        key: The key that it must have.
        shape: The shape (C, Y, X) that it must have.
        room: The largest offset at which its array may begin in the tar.

    Returns:
        The offset of its array in the tar, its checksums [C * blocks], and its meta.

    Raises:
        ValueError: A value is wrong; the message goes on after the name of the sample.
    """
    if sample["key"] != key:
        raise ValueError(f"is listed there as {shown(sample['key'])}")
    if sample["shape"] != list(shape):
        raise ValueError(f"has shape {shown(sample['shape'])}, manifest.json says {shape}")
    offset = sample["fields"]["array"]
    meta = sample["meta"]
    if type(offset) is not int or not 0 < offset <= room:
        raise ValueError("lies outside its tar")
    blocks = [-(-shape[1] // ROW_BLOCK)] * shape[0]
    checks = [int(block, 16) for channel in sample["checksums"] for block in channel]
    if [len(channel) for channel in sample["checksums"]] != blocks:
        raise ValueError(f"does not have {shown(blocks)} checksums")
    if not isinstance(meta, dict) or not isinstance(meta.get("params", {}), dict):
        raise ValueError("has a meta or params that are not JSON objects")
    return offset, checks, meta
