"""Write a shard set: deterministic tars, their indices and statistics, and the manifest that makes them count.

The same samples give the same bytes. Everything is written under a temporary name, synced and renamed. Knows bytes;
must not know equations, ranks or torch.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash
from numpy.lib import format as npy

from pidscale.config import UserError
from pidscale.records.check import check_contents, check_set, check_sizes, read_index
from pidscale.records.layout import (
    ROW_BLOCK,
    VERSION,
    Manifest,
    ShardEntry,
    canonical,
    file_sha256,
    index_name,
    read_json,
    shard_name,
    sync_folder,
    write_atomic,
)
from pidscale.records.stores.folder import Folder

Sample = tuple[str, np.ndarray, dict[str, Any]]  # key, fields float32 [C, Y, X], meta


@dataclass(frozen=True)
class Stats:
    """Statistics per channel that merge exactly: count of values, mean, and M2, the sum of squared deviations."""

    count: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel (of the population)."""
        return tuple(float(v) for v in np.sqrt(np.array(self.m2) / max(self.count, 1)))

    @staticmethod
    def of(fields: np.ndarray) -> Stats:
        """Statistics of one sample [C, Y, X], in float64; to the last bit the same however its memory is laid out."""
        flat = np.ascontiguousarray(fields, dtype=np.float64).reshape(len(fields), -1)
        mean = flat.mean(axis=1)
        m2 = ((flat - mean[:, None]) ** 2).sum(axis=1)
        return Stats(flat.shape[1], tuple(mean.tolist()), tuple(m2.tolist()))


def merge_stats(parts: Sequence[Stats]) -> Stats:
    """Merge statistics of disjoint parts, in their order (Chan et al., 1983). At least one part."""
    count, mean, m2 = parts[0].count, np.array(parts[0].mean), np.array(parts[0].m2)
    for part in parts[1:]:
        total, delta = count + part.count, np.array(part.mean) - mean
        mean = mean + delta * part.count / total
        m2 = m2 + np.array(part.m2) + delta**2 * count * part.count / total
        count = total
    return Stats(count, tuple(mean.tolist()), tuple(m2.tolist()))


def _member(name: str, data: bytes) -> bytes:
    """One tar member, header and padding included, with nothing in it that depends on who writes it or when."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.uid, info.gid, info.mode = len(data), 0, 0, 0, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _check_sample(path: Path, sample: Sample, before: str, shape: tuple[int, ...] | None) -> None:
    key, fields, _ = sample
    if not key.isdigit() or key <= before:
        raise UserError(f"{path}: key '{key}' after '{before}': keys must be zero-padded digits in rising order")
    if fields.dtype != np.float32 or fields.ndim != 3 or (shape is not None and fields.shape != shape):
        raise UserError(
            f"{path}: sample {key} is {fields.dtype} {fields.shape}, expected float32 {shape or '[C, Y, X]'}"
        )
    if not np.isfinite(fields).all():
        channel = int(np.argmin(np.isfinite(fields).all(axis=(1, 2))))
        raise UserError(
            f"{path}: sample {key}, channel {channel} holds values that are not finite; check its parameters"
        )


def stream(file: IO[bytes], path: Path, samples: Iterable[Sample]) -> Stats:
    """Write all samples and the end of the tar, one sample in memory at a time; their statistics.

    path: for messages. UserError names a wrong key, type or shape, or a value that is not finite.
    """
    stats: list[Stats] = []
    before, shape = "", None
    for sample in samples:
        _check_sample(path, sample, before, shape)
        before, fields, meta = sample
        shape = fields.shape
        array = io.BytesIO()
        npy.write_array(array, np.ascontiguousarray(fields, dtype="<f4"), version=(1, 0), allow_pickle=False)
        file.write(_member(f"{before}.fields.npy", array.getvalue()))
        file.write(_member(f"{before}.json", canonical(meta)))
        stats = [merge_stats([*stats, Stats.of(fields)])]
    if not stats:
        raise UserError(f"{path}: a shard must hold at least one sample")
    file.write(bytes(2 * tarfile.BLOCKSIZE))
    return stats[0]


def checksums(fields: np.ndarray) -> list[list[str]]:
    """xxh3_64 (16 hex digits) of each block of 16 rows of each channel of [C, Y, X]: [C][ceil(Y / 16)]."""
    starts = range(0, fields.shape[1], ROW_BLOCK)
    data = np.ascontiguousarray(fields, dtype="<f4")
    return [[xxhash.xxh3_64_hexdigest(channel[y : y + ROW_BLOCK].data) for y in starts] for channel in data]


def members(path: Path) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Members of a tar in order: name, header, data."""
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            data = tar.extractfile(info)
            if data is not None:
                yield info.name, info, data.read()


def index_tar(path: Path) -> list[dict[str, Any]]:
    """Return the index of a tar, read from the tar itself: one entry per sample (shards/README.md)."""
    samples: list[dict[str, Any]] = []
    for name, info, data in members(path):
        key, _, kind = name.partition(".")
        place = {"offset": info.offset_data, "bytes": info.size}
        if kind == "fields.npy":
            stream = io.BytesIO(data)
            fields = npy.read_array(stream, allow_pickle=False)
            array = info.offset_data + info.size - fields.nbytes
            entry = {"key": key, "fields": {**place, "array": array}, "shape": list(fields.shape)}
            samples.append({**entry, "checksums": checksums(fields)})
        elif kind == "json" and samples and samples[-1]["key"] == key:
            samples[-1] |= {"json": place, "meta": json.loads(data)}
        else:
            raise UserError(f"{path}: unexpected member '{name}'; expected KEY.fields.npy followed by KEY.json")
    return samples


def write_shard(root: str | Path, split: str, number: int, samples: Iterable[Sample]) -> tuple[ShardEntry, Stats]:
    """Write one shard and its index; return its manifest entry and its statistics.

    samples: (key, fields float32 [C, Y, X], meta) in the order of their keys; meta holds "seed", "params", "residual".
    The index is written after the tar, so a shard with an index is whole. UserError names a wrong sample.
    """
    root = Path(root)
    path = root / shard_name(split, number)
    temporary = root / f".{path.name}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            stats = stream(file, path, samples)
            file.flush()
            os.fsync(file.fileno())
        listed = index_tar(temporary)
        sha256, size = file_sha256(temporary), temporary.stat().st_size
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check space and permissions of data.path") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(root)
    write_atomic(root / index_name(path.name), index_bytes(path.name, size, sha256, stats, listed))
    return _entry(root, path.name, size, len(listed), sha256), stats


def index_bytes(name: str, size: int, sha256: str, stats: Stats, listed: Sequence[Mapping[str, Any]]) -> bytes:
    """The content of an index file: of a tar's name, bytes, SHA-256 and statistics, and what `index_tar` lists of it."""
    head = {"version": VERSION, "shard": name, "bytes": size, "sha256": sha256, "stats": asdict(stats)}
    return canonical({**head, "samples": list(listed)}) + b"\n"


def _entry(root: Path, name: str, size: int, samples: int, sha256: str) -> ShardEntry:
    return ShardEntry(name, size, samples, sha256, file_sha256(root / index_name(name)))


def finished_shard(root: str | Path, split: str, number: int, samples: int) -> tuple[ShardEntry, Stats] | None:
    """Return what write_shard returned for a shard that is there and true (every byte is read), or None."""
    root, name = Path(root), shard_name(split, number)
    try:
        index = read_json(root / index_name(name))
        stats = Stats(index["stats"]["count"], tuple(index["stats"]["mean"]), tuple(index["stats"]["m2"]))
        entry = _entry(root, name, index["bytes"], samples, index["sha256"])
        store = Folder(root)
        check_sizes(store, [entry])
        read_index(store, entry)
        check_contents(store, entry)
    except (UserError, OSError, KeyError, TypeError):
        return None
    return entry, stats


def publish_manifest(root: str | Path, manifest: Manifest) -> None:
    """Write the manifest, last: from now on the set counts. UserError if what it says is not what is there."""
    where = Path(root) / "manifest.json"
    checked = Manifest.from_json(json.loads(canonical(manifest.to_json())), str(where))
    check_set(checked, root)
    write_atomic(where, json.dumps(manifest.to_json(), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")
