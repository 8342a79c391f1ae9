"""Indices of a set written anew from its tars, to the bytes that the writer gave them. No tar is ever changed.

Must not know equations, ranks or torch.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy

from pidscale.config import UserError
from pidscale.paths import expanded, is_address
from pidscale.records.check import check_contents, load_manifest
from pidscale.records.layout import (
    ShardEntry,
    file_sha256,
    index_name,
    read_json,
    sample_key,
    shard_name,
    write_atomic,
)
from pidscale.records.lock import held
from pidscale.records.stores.folder import Folder
from pidscale.records.write import Sample, index_bytes, index_tar, members, stream

Progress = Callable[[int, int], None]
_MOST_SHARDS = 10**6


@dataclass
class Repaired:
    """What became of the indices: how many were true, the names of those written, one line for each that was left."""

    true: int = 0
    written: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class _Hashing(io.RawIOBase):
    """A file that keeps nothing but the SHA-256 of what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)


def repair_indices(root: str | Path, progress: Progress | None = None) -> Repaired:
    """Write each index that is missing or untrue anew, from its tar; a true one is left alone.

    With a manifest, a tar and the index made of it must be those that it lists. Without (an unfinished set, which has a
    request.json), an index is written so that the maker takes the shard as finished: of a tar that is whole, byte for byte as
    the writer makes it. progress(done, total) counts shards. UserError for an address, a folder that is no set, or one that
    another run is making.
    """
    if is_address(root):
        raise UserError(f"{root}: an index can only be written into a folder of this machine; copy the set here first")
    folder = Path(expanded(root, "path"))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder of a shard set")
    with held(folder) as alone:
        if not alone:
            raise UserError(f"{folder}: another run is making this set; wait for it")
        jobs: list[tuple[str, ShardEntry | None]]
        if (folder / "manifest.json").exists():
            planned = {}
            jobs = [(entry.name, entry) for entry in load_manifest(folder).entries]
        else:
            planned = _planned(folder)
            jobs = [(path.name, None) for path in sorted(folder.glob("*.tar"))]
        done = Repaired()
        for number, (name, entry) in enumerate(jobs, 1):
            try:
                written = _listed(folder, entry) if entry is not None else _unlisted(folder, name, planned)
            except UserError as error:
                done.left.append(str(error))
            except OSError as error:
                done.left.append(
                    f"{error.filename or folder / name}: {error.strerror}; check the file and its permissions"
                )
            else:
                done.written += [index_name(name)] if written else []
                done.true += not written
            if progress is not None:
                progress(number, len(jobs))
    return done


def _listed(folder: Path, entry: ShardEntry) -> bool:
    """Whether the index of a shard of the manifest had to be written. UserError if it cannot be made true."""
    path, store = folder / index_name(entry.name), Folder(folder)
    if _bytes(store, path.name) is not None and file_sha256(path) == entry.index_sha256:
        return False
    try:
        if not (folder / entry.name).exists():
            raise UserError(f"{folder / entry.name}: missing, so its index cannot be made; restore both")
        size = (folder / entry.name).stat().st_size
        if size == entry.bytes:
            check_contents(store, entry)
        else:
            raise UserError(
                f"{folder / entry.name}: {size} bytes, manifest.json says {entry.bytes} bytes, so no index is made of it; "
                "restore it, or delete manifest.json and make the set again (true shards are kept)"
            )
    finally:
        store.close()
    made, _ = _made(folder / entry.name, entry.sha256)
    if hashlib.sha256(made).hexdigest() != entry.index_sha256:
        raise UserError(
            f"{path}: left as it is: what its tar gives is not the index that manifest.json lists; restore the file, or "
            "delete manifest.json and make the set again"
        )
    write_atomic(path, made)
    return True


def _unlisted(folder: Path, name: str, planned: dict[str, tuple[int, int]]) -> bool:
    """Whether the index of a shard without a manifest had to be written. UserError if the tar cannot be trusted."""
    path, tar, store = folder / index_name(name), folder / name, Folder(folder)
    again = "the maker makes this shard again"
    if name not in planned:
        raise UserError(f"{tar}: not a shard that request.json asks for; move it out of the folder")
    sha256, found = file_sha256(tar), _bytes(store, path.name)
    stated = _stated(found)
    if stated is not None and stated != sha256:
        raise UserError(f"{tar}: SHA-256 differs from its index, so one of the two changed; delete both: {again}")
    made, written = _made(tar, sha256)
    if written != sha256:
        raise UserError(f"{tar}: its bytes are not those of a whole shard; delete it: {again}")
    first, count = planned[name]
    keys = [sample["key"] for sample in json.loads(made)["samples"]]
    if keys != [sample_key(first + i) for i in range(count)]:
        raise UserError(
            f"{tar}: holds samples {keys[0]} to {keys[-1]} ({len(keys)}), request.json asks for {sample_key(first)} to "
            f"{sample_key(first + count - 1)}; delete it: {again}"
        )
    if found == made:
        return False
    write_atomic(path, made)
    return True


def _bytes(store: Folder, name: str) -> bytes | None:
    """The content of an index, None where there is none that may be read."""
    try:
        return store.read(name)
    except FileNotFoundError:
        return None


def _stated(index: bytes | None) -> str | None:
    """The SHA-256 of the tar that an index states, None where it states none."""
    try:
        return str(json.loads(index or b"")["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _made(path: Path, sha256: str) -> tuple[bytes, str]:
    """The index of a tar, and the SHA-256 of the tar that the writer makes of the same samples."""
    again = _Hashing()
    try:
        listed = index_tar(path)
        stats = stream(cast(Any, again), path, _samples(path))
        return index_bytes(path.name, path.stat().st_size, sha256, stats, listed), again.digest.hexdigest()
    except (UserError, OSError):
        raise
    except Exception as error:  # damaged headers end numpy and tarfile in many ways
        said = " ".join(str(error).split())
        raise UserError(f"{path}: not a whole shard ({said}); delete it and make the set again") from None


def _samples(path: Path) -> Iterator[Sample]:
    """The samples of a tar as the writer takes them."""
    key, fields = "", np.empty(0)
    for name, _, data in members(path):
        if name.endswith(".fields.npy"):
            key, fields = name.partition(".")[0], npy.read_array(io.BytesIO(data), allow_pickle=False)
        else:
            yield key, fields, json.loads(data)


def _planned(folder: Path) -> dict[str, tuple[int, int]]:
    """First sample and number of samples of each shard that an unfinished set is to have, by name."""
    path = folder / "request.json"
    if not path.exists():
        raise UserError(
            f"{folder}: neither manifest.json nor request.json, so it is not a shard set; name another folder"
        )
    return planned_shards(read_json(path), str(path))


def planned_shards(request: Any, where: str) -> dict[str, tuple[int, int]]:
    """First sample and number of samples of each shard that a request asks for, by name. UserError if it asks for none."""
    try:
        size, plan = int(request["samples_per_shard"]), {}
        counts = {split: int(count) for split, count in request["samples"].items()}
        shards = sum(-(-count // size) for count in counts.values())
        if size < 1 or shards > _MOST_SHARDS or any(n < 1 or not split.isidentifier() for split, n in counts.items()):
            raise ValueError(f"{shards} shards")
        for split, count in counts.items():
            for number, first in enumerate(range(0, count, size)):
                plan[shard_name(split, number)] = (first, min(size, count - first))
    except ZeroDivisionError:
        raise UserError(f"{where}: samples_per_shard is 0; restore the file") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{where}: no request of a shard set (samples, samples_per_shard); restore the file") from None
    return plan
