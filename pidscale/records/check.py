"""Whether the files of a set are what its manifest says, and the manifest what is wanted. Every finding is one line.

Must not know equations, ranks or torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.records.layout import ROW_BLOCK, VERSION, Manifest, ShardEntry, canonical, index_name, parsed, shown
from pidscale.records.stores.base import Store, Unreachable, sha256_of
from pidscale.records.stores.opening import open_store

_AGAIN = "restore it, or delete manifest.json and make the set again (true shards are kept)"
_REPAIR = "restore it, or write it anew from the tar: `pidscale shards repair-index`"


def load_manifest(root: str | Path | Store) -> Manifest:
    """Return the manifest of the set in this folder or at this address; UserError names what is missing or wrong."""
    store = open_store(root)
    where = store.where("manifest.json")
    try:
        data = store.read("manifest.json")
    except OSError as error:
        store.sizes()  # whose message is better where the folder itself is not there
        found = "missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise UserError(
            f"{where}: {found}, so the set is unfinished or not a set; finish it with `pidscale make-shards` in a folder"
        ) from None
    return Manifest.from_json(parsed(data, where), where)


def check_sizes(store: Store, entries: Iterable[ShardEntry]) -> None:
    """Check that shards and their indices are there, tars of their size; one listing. UserError names the file."""
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
    """Return what the index of a shard lists, after checking its SHA-256, shard and count against the manifest."""
    name = index_name(entry.name)
    where = store.where(name)
    try:
        data = store.read(name)
        if hashlib.sha256(data).hexdigest() != entry.index_sha256 and store.renew(name):
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
    """Read every byte of a shard and compare its SHA-256 with the manifest's. UserError names the file."""
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
    """Check a manifest against what is wanted; UserError names the difference.

    equation, grid: what the run is configured for (grid as in the manifest; only the keys given are compared).
    """
    where = open_store(root).where("manifest.json")
    if equation is not None and manifest.equation != equation:
        made = f"made for equation '{manifest.equation}'"
        raise UserError(f"{where}: {made}, the run wants '{equation}'; change data.path")
    for key, wanted in (grid or {}).items():
        found = manifest.grid.get(key)
        if canonical(found) != canonical(wanted):
            made = f"made for grid {key} {found}"
            raise UserError(f"{where}: {made}, the run wants {wanted}; change data.path or the grid of the run")


def check_set(manifest: Manifest, root: str | Path | Store, contents: bool = False) -> None:
    """Check a set against its files: sizes and indices; with contents also every byte. UserError names the file."""
    store = open_store(root)
    check_sizes(store, manifest.entries)
    for entry in manifest.entries:
        read_index(store, entry)
        if contents:
            check_contents(store, entry)


def checked_sample(
    sample: dict[str, Any], key: str, shape: tuple[int, int, int], room: int
) -> tuple[int, list[int], dict[str, Any]]:
    """What an index says of a sample: array offset, at most `room`, checksums [C * blocks], meta. Raises what it is not."""
    if sample["key"] != key:
        raise ValueError(f"stands there as {shown(sample['key'])}")
    if sample["shape"] != list(shape):
        raise ValueError(f"has shape {shown(sample['shape'])}, manifest.json says {shape}")
    offset, meta = sample["fields"]["array"], sample["meta"]
    if type(offset) is not int or not 0 < offset <= room:
        raise ValueError("lies outside its tar")
    blocks = [-(-shape[1] // ROW_BLOCK)] * shape[0]
    checks = [int(block, 16) for channel in sample["checksums"] for block in channel]
    if [len(channel) for channel in sample["checksums"]] != blocks:
        raise ValueError(f"has not {shown(blocks)} checksums")
    if not isinstance(meta, dict) or not isinstance(meta.get("params", {}), dict):
        raise ValueError("has a meta or params that are no JSON object")
    return offset, checks, meta
