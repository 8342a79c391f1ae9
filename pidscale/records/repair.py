"""Repair of a set's indices: they are written again from the tars, to the same bytes. No tar is ever changed.

Must not know equations, ranks or torch.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy

from pidscale.config import UserError
from pidscale.files import file_sha256, write_atomic
from pidscale.paths import expanded, is_address
from pidscale.records.check import check_contents, load_manifest
from pidscale.records.format import index_name, sample_key, shard_name
from pidscale.records.json_checks import read_json
from pidscale.records.lock import held
from pidscale.records.manifest import ShardEntry
from pidscale.records.stores.folder import Folder
from pidscale.records.write import Sample, index_bytes, index_tar, members, write_tar

Progress = Callable[[int, int], None]
_MOST_SHARDS = 10**6


@dataclass
class Repaired:
    """Result of repairing the indices of a set.

    Attributes:
        true: The number of indices that were intact.
        written: The names of the indices that were written.
        left: One line for each index that could not be repaired.
    """

    true: int = 0
    written: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class _HashingFile(io.RawIOBase):
    """A file that keeps only the SHA-256 of what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)


def repair_indices(root: str | Path, progress: Progress | None = None) -> Repaired:
    """Write each missing or damaged index of a set again from its tar. Intact indices are not touched.

    If the set has a manifest, the tar and the index made from it must be those that the manifest lists. An unfinished set has
    a request.json instead. An index is then written only if the tar is complete, byte for byte as the writer makes it: the
    maker of the set takes the shard as finished.

    Args:
        root: The folder of the set.
        progress: Called with the number of finished shards and of all shards.

    Returns:
        The result.

    Raises:
        UserError: `root` is an address, or a folder that is not a set or that another run is making.
    """
    if is_address(root):
        raise UserError(f"{root}: an index can only be written to a folder of this machine; copy the set here first")
    folder = Path(expanded(root, "path"))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the folder of a shard set")
    with held(folder) as alone:
        if not alone:
            raise UserError(f"{folder}: another run is making this set; wait for it")
        repairs: list[tuple[str, Callable[[], bool]]]
        if (folder / "manifest.json").exists():
            entries = load_manifest(folder).entries
            repairs = [(entry.name, partial(_repair_listed, folder, entry)) for entry in entries]
        else:
            planned = _planned(folder)
            tars = sorted(path.name for path in folder.glob("*.tar"))
            repairs = [(name, partial(_repair_planned, folder, name, planned)) for name in tars]
        done = Repaired()
        for number, (name, repair) in enumerate(repairs, 1):
            try:
                written = repair()
            except UserError as error:
                done.left.append(str(error))
            except OSError as error:
                place = error.filename or folder / name
                done.left.append(f"{place}: {error.strerror}; check the file and its permissions")
            else:
                done.written += [index_name(name)] if written else []
                done.true += not written
            if progress is not None:
                progress(number, len(repairs))
    return done


def _repair_listed(folder: Path, entry: ShardEntry) -> bool:
    """Return whether the index of a shard of the manifest had to be written; UserError if it cannot be repaired."""
    path = folder / index_name(entry.name)
    tar = folder / entry.name
    store = Folder(folder)
    if _content(store, path.name) is not None and file_sha256(path) == entry.index_sha256:
        return False
    if not tar.exists():
        raise UserError(f"{tar}: missing, so its index cannot be made; restore both")
    size = tar.stat().st_size
    if size != entry.bytes:
        raise UserError(
            f"{tar}: {size} bytes, manifest.json says {entry.bytes} bytes, so no index is made of it; restore it, or delete "
            "manifest.json and make the set again (intact shards are kept)"
        )
    with closing(store):
        check_contents(store, entry)
    index, _ = _index_of(tar, entry.sha256)
    if hashlib.sha256(index).hexdigest() != entry.index_sha256:
        raise UserError(
            f"{path}: not changed: the index made from its tar is not the one that manifest.json lists; restore the file, or "
            "delete manifest.json and make the set again"
        )
    write_atomic(path, index)
    return True


def _repair_planned(folder: Path, name: str, planned: dict[str, tuple[int, int]]) -> bool:
    """Return whether the index of a shard of an unfinished set had to be written; UserError if the tar is not intact."""
    path = folder / index_name(name)
    tar = folder / name
    again = "the shard is then made again with the set"
    if name not in planned:
        raise UserError(f"{tar}: not a shard that request.json asks for; move it out of the folder")
    sha256 = file_sha256(tar)
    found = _content(Folder(folder), path.name)
    stated = _stated_sha256(found)
    if stated is not None and stated != sha256:
        raise UserError(f"{tar}: SHA-256 differs from its index, so one of the two changed; delete both: {again}")
    index, sha256_as_written = _index_of(tar, sha256)
    if sha256_as_written != sha256:
        raise UserError(f"{tar}: its bytes are not those of a whole shard; delete it: {again}")
    first, count = planned[name]
    keys = [sample["key"] for sample in json.loads(index)["samples"]]
    if keys != [sample_key(first + i) for i in range(count)]:
        raise UserError(
            f"{tar}: holds samples {keys[0]} to {keys[-1]} ({len(keys)}), request.json asks for {sample_key(first)} to "
            f"{sample_key(first + count - 1)}; delete it: {again}"
        )
    if found == index:
        return False
    write_atomic(path, index)
    return True


def _content(store: Folder, name: str) -> bytes | None:
    """Return the content of an index; None if there is no such file."""
    try:
        return store.read(name)
    except FileNotFoundError:
        return None


def _stated_sha256(index: bytes | None) -> str | None:
    """Return the SHA-256 of the tar that an index states; None if it states none."""
    try:
        return str(json.loads(index or b"")["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _index_of(path: Path, sha256: str) -> tuple[bytes, str]:
    """Return the index of a tar, and the SHA-256 of the tar that the writer makes of the same samples."""
    written = _HashingFile()
    try:
        listed = index_tar(path)
        stats = write_tar(cast(Any, written), path, _samples(path))
        return index_bytes(path.name, path.stat().st_size, sha256, stats, listed), written.digest.hexdigest()
    except (UserError, OSError):
        raise
    except Exception as error:  # damaged headers raise many kinds of errors in numpy and tarfile
        cause = " ".join(str(error).split())
        raise UserError(f"{path}: not a whole shard ({cause}); delete it and make the set again") from None


def _samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a tar as `write_tar` takes them."""
    key = ""
    fields = np.empty(0)
    for name, _, data in members(path):
        if name.endswith(".fields.npy"):
            key = name.partition(".")[0]
            fields = npy.read_array(io.BytesIO(data), allow_pickle=False)
        else:
            yield key, fields, json.loads(data)


def _planned(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the first sample and the number of samples of each shard of an unfinished set, by file name."""
    path = folder / "request.json"
    if not path.exists():
        raise UserError(
            f"{folder}: neither manifest.json nor request.json, so this is not a shard set; expected the folder of one"
        )
    return planned_shards(read_json(path), str(path))


def planned_shards(request: Any, where: str) -> dict[str, tuple[int, int]]:
    """Return which samples each shard of a request holds.

    Args:
        request: The parsed request.json.
        where: The file, for messages.

    Returns:
        The first sample and the number of samples of each shard, by file name.

    Raises:
        UserError: It is not the request of a shard set.
    """
    plan: dict[str, tuple[int, int]] = {}
    try:
        size = int(request["samples_per_shard"])
        counts = {split: int(count) for split, count in request["samples"].items()}
        valid = size >= 1 and sum(-(-count // size) for count in counts.values()) <= _MOST_SHARDS
        valid = valid and all(count >= 1 and split.isidentifier() for split, count in counts.items())
    except (AttributeError, KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise UserError(f"{where}: expected the request of a shard set (samples, samples_per_shard); restore the file")
    for split, count in counts.items():
        for number, first in enumerate(range(0, count, size)):
            plan[shard_name(split, number)] = (first, min(size, count - first))
    return plan
