"""An audit of one shard: its files against its manifest entry, and its tar against its index, with every finding.

Must not know equations, ranks or torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy

from pidscale.config import UserError
from pidscale.records.check import read_index
from pidscale.records.format import VERSION, index_name, sample_key
from pidscale.records.json_checks import parsed
from pidscale.records.manifest import ShardEntry
from pidscale.records.stores.base import SequentialFile, Store
from pidscale.records.write import Stats, merge_stats

MOST = 16  # findings of one kind that are reported one by one
_PIECE = 2**22  # bytes of a read
_TAR_READ = 2**16  # bytes of a read by tarfile
_AGAIN = "restore it, or make the set again"


@dataclass(frozen=True)
class ShardAudit:
    """The result of an audit.

    Attributes:
        findings: What is wrong with the shard, one line each.
        readable: Whether its samples can be read.
        stats: Its statistics; None if anything is wrong.
    """

    findings: list[str]
    readable: bool
    stats: Stats | None


def capped(found: Sequence[str], where: str) -> list[str]:
    """Return findings of one kind, at most `MOST` of them and then how many more there are.

    Args:
        found: The findings.
        where: The file, for the last line.

    Returns:
        The findings to report.
    """
    more = len(found) - MOST
    return [*found[:MOST], f"{where}: and {more} more findings of this kind; {_AGAIN}"] if more > 0 else list(found)


class _HashedFile(SequentialFile):
    """A file of a store that is hashed while it is read."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        super().__init__(store, name, size)
        self.digest = hashlib.sha256()

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit and are left."""
        count = super().readinto(buffer)
        self.digest.update(memoryview(buffer).cast("B")[:count])
        return count


def audit_shard(
    store: Store,
    entry: ShardEntry,
    sizes: Mapping[str, int],
    shape: tuple[int, int, int],
    first: int,
) -> ShardAudit:
    """Compare a shard with its manifest entry, and its tar, as Python's tarfile reads it, with its index.

    A remote store that does not answer raises a UserError.

    Args:
        store: The store of the set.
        entry: The shard as the manifest lists it.
        sizes: The sizes of all files, from `Store.sizes`.
        shape: The shape (C, Y, X) of every sample.
        first: The number of its first sample in the split.

    Returns:
        The findings.
    """
    found: list[str] = []
    head: dict[str, Any] | None = None
    tar = store.where(entry.name)
    index = index_name(entry.name)
    try:
        read_index(store, entry)
        head = parsed(store.read(index), store.where(index))
    except UserError as error:
        found.append(str(error))
    except OSError as error:
        found.append(f"{store.where(index)}: {error.strerror}; {_AGAIN}")
    if entry.name not in sizes:
        return ShardAudit([*found, f"{tar}: missing, but manifest.json lists it; {_AGAIN}"], False, None)
    if sizes[entry.name] != entry.bytes:
        how = "truncated" if sizes[entry.name] < entry.bytes else "replaced"
        finding = f"{tar}: {sizes[entry.name]} bytes, manifest.json says {entry.bytes} bytes: {how}; {_AGAIN}"
        return ShardAudit([*found, finding], False, None)
    try:
        store.fill(entry.name, 0, memoryview(bytearray(1)))
    except PermissionError:
        return ShardAudit([*found, f"{tar}: this run may not read it; change its permissions"], False, None)
    except (OSError, ValueError):
        pass  # the walk through the tar reports it
    walk = _TarWalk(tar, head["samples"] if head else None, shape, first)
    sha256 = walk.through(_HashedFile(store, entry.name, entry.bytes))
    found += capped(walk.found, tar)
    if walk.members != 2 * entry.samples:
        found.append(
            f"{tar}: ends after {walk.members} members, manifest.json says {entry.samples} samples of two members; {_AGAIN}"
        )
    if sha256 != entry.sha256:
        found.append(f"{tar}: SHA-256 differs from manifest.json, so its bytes changed; {_AGAIN}")
    finite = walk.stats is not None and walk.stats.count == entry.samples * shape[1] * shape[2]
    # statistics of a tar that changed prove nothing; values that are not finite are reported when the samples are read
    stats = walk.stats if finite and sha256 == entry.sha256 else None
    if head is not None:
        found += _head_findings(head, entry, stats, store.where(index))
    return ShardAudit(found, head is not None, None if found else stats)


class _TarWalk:
    """A walk through the members of a tar, compared with what its index lists (None: there is no valid index)."""

    def __init__(self, where: str, listed: list[Any] | None, shape: tuple[int, int, int], first: int) -> None:
        self.where = where
        self.listed = listed
        self.shape = shape
        self.first = first
        self.found: list[str] = []
        self.members = 0
        self.stats: Stats | None = None

    def through(self, raw: _HashedFile) -> str:
        """Walk to the end of the tar; return the SHA-256 of all bytes, in hex."""
        reader = io.BufferedReader(raw, _PIECE)
        try:
            with tarfile.open(fileobj=reader, mode="r|", bufsize=_TAR_READ) as tar:
                for info in tar:
                    data = tar.extractfile(info) if info.isreg() else None
                    self._member(info, b"" if data is None else data.read())
                    self.members += 1
            while reader.read(_PIECE):
                continue
        except (tarfile.TarError, ValueError, OSError) as error:
            cause = " ".join(str(error).split())
            self.found.append(f"{self.where}: not a tar after {self.members} members ({cause}); {_AGAIN}")
            with suppress(ValueError, OSError):
                while reader.read(_PIECE):
                    continue
        return raw.digest.hexdigest()

    def _member(self, info: tarfile.TarInfo, data: bytes) -> None:
        """Compare a member with what is expected at its place."""
        number, second = divmod(self.members, 2)
        key = sample_key(self.first + number)
        wanted = f"{key}.json" if second else f"{key}.fields.npy"
        if info.name != wanted:
            self.found.append(f"{self.where}: member {self.members} is {info.name!r}, expected {wanted!r}; {_AGAIN}")
            return
        where = f"{self.where}: member {wanted}"
        listed = self.listed[number] if self.listed is not None and number < len(self.listed) else None
        try:
            finding = self._json(info, data, listed) if second else self._fields(info, data, listed)
        except Exception as error:  # damaged headers raise many kinds of errors in numpy, malformed entries here
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            finding = f"cannot be read, or its index entry is malformed ({cause})"
        if finding:
            self.found.append(f"{where}: {finding}; {_AGAIN}")

    def _fields(self, info: tarfile.TarInfo, data: bytes, listed: Any) -> str:
        """Return what is wrong with the fields of a sample, "" if nothing; add them to the statistics."""
        stream = io.BytesIO(data)
        version = npy.read_magic(stream)
        if version != (1, 0):
            return f"npy version {version}, expected (1, 0)"
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
        if (shape, fortran, dtype.str) != (self.shape, False, "<f4"):
            order = "Fortran" if fortran else "C"
            return f"holds {dtype.str} {shape} in {order} order, expected <f4 {self.shape} in C order"
        values = np.frombuffer(data, "<f4", offset=stream.tell()).reshape(shape)
        if np.isfinite(values).all():
            stats = Stats.of(values)
            self.stats = merge_stats([self.stats, stats]) if self.stats else stats
        if listed is None:
            return ""
        places = {"offset": info.offset_data, "bytes": info.size, "array": info.offset_data + stream.tell()}
        if listed["fields"] != places or listed["shape"] != list(shape):
            stated = f"{listed['fields']} and shape {listed['shape']}"
            return f"its index says {stated}, it has {places} and shape {list(shape)}"
        return self._key(listed)

    def _json(self, info: tarfile.TarInfo, data: bytes, listed: Any) -> str:
        """Return what is wrong with the JSON of a sample, "" if nothing."""
        meta = json.loads(data)
        if not isinstance(meta, dict) or not {"seed", "params", "residual"} <= set(meta):
            return "expected an object with seed, params and residual"
        if listed is None:
            return ""
        place = {"offset": info.offset_data, "bytes": info.size}
        if listed["json"] != place:
            return f"its index says {listed['json']}, it has {place}"
        keys = sorted(k for k in {*meta, *listed["meta"]} if meta.get(k) != listed["meta"].get(k))
        return f"{', '.join(keys)} not as in the index" if keys else ""

    def _key(self, listed: Any) -> str:
        """Return what is wrong with the key of a sample in the index, "" if nothing."""
        key = sample_key(self.first + self.members // 2)
        return "" if listed["key"] == key else f"its index has the key {listed['key']!r}"


def _head_findings(head: Mapping[str, Any], entry: ShardEntry, stats: Stats | None, where: str) -> list[str]:
    """Return the findings of comparing the head of an index with the manifest and the tar."""
    wanted = {"version": VERSION, "shard": entry.name, "bytes": entry.bytes, "sha256": entry.sha256}
    found = [
        f"{where}: key '{key}' is {head.get(key)!r}, expected {value!r}; {_AGAIN}"
        for key, value in wanted.items()
        if head.get(key) != value
    ]
    try:
        stated = head["stats"]
        if stats is not None:
            mean = np.array(stats.mean)
            std = np.array(stats.std)
            m2 = np.array(stats.m2)
            close = (
                apart(stated["mean"], mean, np.maximum(abs(mean), std)) <= 1e-9 and apart(stated["m2"], m2, m2) <= 1e-9
            )
            if stated["count"] != stats.count or not close:
                found.append(f"{where}: key 'stats' does not hold the statistics of its tar; {_AGAIN}")
    except (KeyError, TypeError, ValueError):
        found.append(f"{where}: key 'stats' is missing or malformed; {_AGAIN}")
    return found


def apart(stated: Sequence[float], true: np.ndarray, scale: np.ndarray) -> float:
    """Return the largest relative difference of stated numbers from true ones.

    Args:
        stated: The stated numbers [C].
        true: The true numbers [C].
        scale: What each difference is divided by, [C].

    Returns:
        The largest quotient; 0 for a difference of 0.
    """
    difference = abs(np.asarray(stated, dtype=np.float64) - true)
    return float(np.max(np.where(difference != 0, difference / np.maximum(scale, 1e-300), 0.0)))
