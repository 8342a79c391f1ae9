"""A shard held against its manifest entry, and its tar against its index: every finding, not only the first.

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
from pidscale.records.layout import VERSION, ShardEntry, index_name, parsed, sample_key
from pidscale.records.stores.base import Forward, Store
from pidscale.records.write import Stats, merge_stats

MOST = 16  # findings of one kind that are told one by one
_PIECE = 2**22  # bytes that are read at a time
_HEAD = 2**16  # bytes that tarfile asks for at a time
_AGAIN = "restore it, or make the set again"


@dataclass(frozen=True)
class ShardAudit:
    """What is wrong with a shard; whether its samples can be asked for; its statistics, None where anything is wrong."""

    findings: list[str]
    readable: bool
    stats: Stats | None


def capped(found: Sequence[str], where: str) -> list[str]:
    """These findings; of more than MOST the first ones and how many more there are."""
    more = len(found) - MOST
    return [*found[:MOST], f"{where}: and {more} more findings of this kind; {_AGAIN}"] if more > 0 else list(found)


class _Hashed(Forward):
    """Hashed as it is read."""

    def __init__(self, store: Store, name: str, size: int) -> None:
        super().__init__(store, name, size)
        self.digest = hashlib.sha256()

    def readinto(self, buffer: Any) -> int:
        """As many bytes as fit and are left."""
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
    """Hold a shard against its entry, and its tar, as the stock tarfile reads it, against its index.

    sizes: of `Store.sizes`. shape: (C, Y, X) of every sample. first: the number of its first sample in the split.
    UserError where a remote store does not answer.
    """
    found: list[str] = []
    head: dict[str, Any] | None = None
    tar, index = store.where(entry.name), index_name(entry.name)
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
        said = f"{tar}: {sizes[entry.name]} bytes, manifest.json says {entry.bytes} bytes: {how}; {_AGAIN}"
        return ShardAudit([*found, said], False, None)
    try:
        store.fill(entry.name, 0, memoryview(bytearray(1)))
    except PermissionError:
        return ShardAudit([*found, f"{tar}: this run may not read it; change its permissions"], False, None)
    except (OSError, ValueError):
        pass  # the walk says what it is
    walk = _Walk(tar, head["samples"] if head else None, shape, first)
    sha256 = walk.through(_Hashed(store, entry.name, entry.bytes))
    found += capped(walk.found, tar)
    if walk.members != 2 * entry.samples:
        found.append(
            f"{tar}: ends after {walk.members} members, manifest.json says {entry.samples} samples of two; {_AGAIN}"
        )
    if sha256 != entry.sha256:
        found.append(f"{tar}: SHA-256 differs from manifest.json, so its bytes changed; {_AGAIN}")
    finite = walk.stats is not None and walk.stats.count == entry.samples * shape[1] * shape[2]
    # values that are not finite are named by who reads the samples, and a tar that changed has other statistics anyway
    stats = walk.stats if finite and sha256 == entry.sha256 else None
    if head is not None:
        found += _head_findings(head, entry, stats, store.where(index))
    return ShardAudit(found, head is not None, None if found else stats)


class _Walk:
    """A walk through the members of a tar beside what its index lists of them (None: no index to hold them against)."""

    def __init__(self, where: str, listed: list[Any] | None, shape: tuple[int, int, int], first: int) -> None:
        self.where, self.listed, self.shape, self.first = where, listed, shape, first
        self.found: list[str] = []
        self.members = 0
        self.stats: Stats | None = None

    def through(self, raw: _Hashed) -> str:
        """Walk to the end; the SHA-256 of all bytes, in hex."""
        reader = io.BufferedReader(raw, _PIECE)
        try:
            with tarfile.open(fileobj=reader, mode="r|", bufsize=_HEAD) as tar:
                for info in tar:
                    data = tar.extractfile(info) if info.isreg() else None
                    self._member(info, b"" if data is None else data.read())
                    self.members += 1
            while reader.read(_PIECE):
                continue
        except (tarfile.TarError, ValueError, OSError) as error:
            said = " ".join(str(error).split())
            self.found.append(f"{self.where}: no tar after {self.members} members ({said}); {_AGAIN}")
            with suppress(ValueError, OSError):
                while reader.read(_PIECE):
                    continue
        return raw.digest.hexdigest()

    def _member(self, info: tarfile.TarInfo, data: bytes) -> None:
        number, second = divmod(self.members, 2)
        key = sample_key(self.first + number)
        wanted = f"{key}.json" if second else f"{key}.fields.npy"
        if info.name != wanted:
            self.found.append(f"{self.where}: member {self.members} is {info.name!r}, expected {wanted!r}; {_AGAIN}")
            return
        where = f"{self.where}: member {wanted}"
        listed = self.listed[number] if self.listed is not None and number < len(self.listed) else None
        try:
            said = self._json(info, data, listed) if second else self._fields(info, data, listed)
        except Exception as error:  # damaged headers end numpy in many ways, a malformed index entry ends us
            said = f"cannot be read, or its index entry is malformed ({type(error).__name__}: {' '.join(str(error).split())})"
        if said:
            self.found.append(f"{where}: {said}; {_AGAIN}")

    def _fields(self, info: tarfile.TarInfo, data: bytes, listed: Any) -> str:
        """What is wrong with the fields of a sample, "" if nothing; counts them into the statistics."""
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
            mine = Stats.of(values)
            self.stats = merge_stats([self.stats, mine]) if self.stats else mine
        if listed is None:
            return ""
        places = {"offset": info.offset_data, "bytes": info.size, "array": info.offset_data + stream.tell()}
        if listed["fields"] != places or listed["shape"] != list(shape):
            return f"its index says {listed['fields']} and shape {listed['shape']}, it has {places} and shape {list(shape)}"
        return self._key(listed)

    def _json(self, info: tarfile.TarInfo, data: bytes, listed: Any) -> str:
        """What is wrong with the JSON of a sample, "" if nothing."""
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
        key = sample_key(self.first + self.members // 2)
        return "" if listed["key"] == key else f"its index calls it {listed['key']!r}"


def _head_findings(head: Mapping[str, Any], entry: ShardEntry, stats: Stats | None, where: str) -> list[str]:
    """What the head of an index says of its tar, against the manifest and the tar."""
    wanted = {"version": VERSION, "shard": entry.name, "bytes": entry.bytes, "sha256": entry.sha256}
    found = [
        f"{where}: key '{key}' is {head.get(key)!r}, expected {value!r}; {_AGAIN}"
        for key, value in wanted.items()
        if head.get(key) != value
    ]
    try:
        said = head["stats"]
        if stats is not None:
            mean, std, m2 = np.array(stats.mean), np.array(stats.std), np.array(stats.m2)
            close = apart(said["mean"], mean, np.maximum(abs(mean), std)) <= 1e-9 and apart(said["m2"], m2, m2) <= 1e-9
            if said["count"] != stats.count or not close:
                found.append(f"{where}: key 'stats' is not that of its tar; {_AGAIN}")
    except (KeyError, TypeError, ValueError):
        found.append(f"{where}: key 'stats' is missing or malformed; {_AGAIN}")
    return found


def apart(stated: Sequence[float], true: np.ndarray, scale: np.ndarray) -> float:
    """The largest difference of stated numbers from true ones [C], relative to a scale [C]; 0 where both are 0."""
    gap = abs(np.asarray(stated, dtype=np.float64) - true)
    return float(np.max(np.where(gap != 0, gap / np.maximum(scale, 1e-300), 0.0)))
