"""Writing a shard set: deterministic tars, their indices and statistics, and the manifest that makes them count.

The same samples give the same bytes. Every file is written under a temporary name, synced and renamed. Knows bytes; must not
know equations, ranks or torch.
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
from pidscale.files import file_sha256, sync_folder, write_atomic
from pidscale.records.check import check_contents, check_set, check_sizes, read_index
from pidscale.records.format import ROW_BLOCK, VERSION, index_name, shard_name
from pidscale.records.json_checks import canonical, read_json
from pidscale.records.manifest import Manifest, ShardEntry
from pidscale.records.stores.folder import Folder

Sample = tuple[str, np.ndarray, dict[str, Any]]  # key, fields float32 [C, Y, X], meta


@dataclass(frozen=True)
class Stats:
    """Statistics of each channel, which can be merged.

    Attributes:
        count: The number of values of a channel.
        mean: The mean of each channel.
        m2: The sum of squared deviations from the mean of each channel.
    """

    count: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of each channel (of the population)."""
        return tuple(float(v) for v in np.sqrt(np.array(self.m2) / max(self.count, 1)))

    @staticmethod
    def of(fields: np.ndarray) -> Stats:
        """Return the statistics of one sample [C, Y, X] in float64; its memory layout changes no bit of them."""
        flat = np.ascontiguousarray(fields, dtype=np.float64).reshape(len(fields), -1)
        mean = flat.mean(axis=1)
        m2 = ((flat - mean[:, None]) ** 2).sum(axis=1)
        return Stats(flat.shape[1], tuple(mean.tolist()), tuple(m2.tolist()))


def merge_stats(parts: Sequence[Stats]) -> Stats:
    """Merge the statistics of at least one part, in their order.

    Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance.

    Args:
        parts: The statistics of disjoint parts.

    Returns:
        The statistics of all parts together.
    """
    count = parts[0].count
    mean = np.array(parts[0].mean)
    m2 = np.array(parts[0].m2)
    for part in parts[1:]:
        total = count + part.count
        delta = np.array(part.mean) - mean
        mean = mean + delta * part.count / total
        m2 = m2 + np.array(part.m2) + delta**2 * count * part.count / total
        count = total
    return Stats(count, tuple(mean.tolist()), tuple(m2.tolist()))


def _member(name: str, data: bytes) -> bytes:
    """Return a tar member with header and padding; nothing in it depends on who writes it or when."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = 0
    info.uid = 0
    info.gid = 0
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _check_sample(path: Path, sample: Sample, before: str, shape: tuple[int, ...] | None) -> None:
    """Raise UserError unless a sample may follow the one with the key `before`."""
    key, fields, _ = sample
    if not key.isdigit() or key <= before:
        raise UserError(f"{path}: key '{key}' after '{before}': expected zero-padded digits in rising order")
    if fields.dtype != np.float32 or fields.ndim != 3 or (shape is not None and fields.shape != shape):
        raise UserError(
            f"{path}: sample {key} is {fields.dtype} {fields.shape}, expected float32 {shape or '[C, Y, X]'}"
        )
    if not np.isfinite(fields).all():
        channel = int(np.argmin(np.isfinite(fields).all(axis=(1, 2))))
        raise UserError(
            f"{path}: sample {key}, channel {channel} holds values that are not finite; check its parameters"
        )


def write_tar(file: IO[bytes], path: Path, samples: Iterable[Sample]) -> Stats:
    """Write samples and the end of the tar; only one sample is in memory at a time.

    A sample with a wrong key, type or shape, or with values that are not finite, raises a UserError that names it.

    Args:
        file: The file to write to.
        path: The final name of the tar, for messages.
        samples: Key, fields float32 [C, Y, X] and meta of each sample, in the order of their keys.

    Returns:
        The statistics of all samples.

    Raises:
        UserError: There are no samples.
    """
    stats: list[Stats] = []
    before = ""
    shape = None
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
        raise UserError(f"{path}: no samples; a shard holds at least one")
    file.write(bytes(2 * tarfile.BLOCKSIZE))
    return stats[0]


def checksums(fields: np.ndarray) -> list[list[str]]:
    """Return the checksum of each row block of a sample.

    Args:
        fields: The fields [C, Y, X].

    Returns:
        The xxh3_64 (16 hex digits) of each block of 16 rows of each channel, [C][ceil(Y / 16)].
    """
    starts = range(0, fields.shape[1], ROW_BLOCK)
    data = np.ascontiguousarray(fields, dtype="<f4")
    return [[xxhash.xxh3_64_hexdigest(channel[y : y + ROW_BLOCK].data) for y in starts] for channel in data]


def members(path: Path) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """Yield name, header and data of the members of a tar, in their order."""
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            data = tar.extractfile(info)
            if data is not None:
                yield info.name, info, data.read()


def index_tar(path: Path) -> list[dict[str, Any]]:
    """List the samples of a tar, read from the tar itself.

    Args:
        path: The tar.

    Returns:
        One entry for each sample, as in the index (shards/README.md).

    Raises:
        UserError: The tar has a member that a shard does not have.
    """
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
            raise UserError(f"{path}: member '{name}'; expected KEY.fields.npy followed by KEY.json")
    return samples


def write_shard(root: str | Path, split: str, number: int, samples: Iterable[Sample]) -> tuple[ShardEntry, Stats]:
    """Write one shard and then its index, so that a shard with an index is complete.

    Args:
        root: The folder of the set.
        split: The name of the split.
        number: The number of the shard in its split.
        samples: Key, fields float32 [C, Y, X] and meta of each sample, in the order of their keys. The meta holds "seed",
            "params" and "residual". A wrong sample raises a UserError that names it.

    Returns:
        The shard's entry in the manifest, and its statistics.

    Raises:
        UserError: The shard cannot be written.
    """
    root = Path(root)
    path = root / shard_name(split, number)
    temporary = root / f".{path.name}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            stats = write_tar(file, path, samples)
            file.flush()
            os.fsync(file.fileno())
        listed = index_tar(temporary)
        sha256 = file_sha256(temporary)
        size = temporary.stat().st_size
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; check free space and permissions of the set's folder; "
            "the same command continues from what is made"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(root)
    write_atomic(root / index_name(path.name), index_bytes(path.name, size, sha256, stats, listed))
    return _entry(root, path.name, size, len(listed), sha256), stats


def index_bytes(name: str, size: int, sha256: str, stats: Stats, listed: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the content of an index file.

    Args:
        name: The file name of the tar.
        size: Its bytes.
        sha256: Its SHA-256, in hex.
        stats: The statistics of its samples.
        listed: What `index_tar` lists of it.

    Returns:
        The content.
    """
    head = {"version": VERSION, "shard": name, "bytes": size, "sha256": sha256, "stats": asdict(stats)}
    return canonical({**head, "samples": list(listed)}) + b"\n"


def _entry(root: Path, name: str, size: int, samples: int, sha256: str) -> ShardEntry:
    """Return the entry of a shard in the manifest; reads its index."""
    return ShardEntry(name, size, samples, sha256, file_sha256(root / index_name(name)))


def finished_shard(root: str | Path, split: str, number: int, samples: int) -> tuple[ShardEntry, Stats] | None:
    """Check a shard that may have been written before. Every byte of it is read.

    Args:
        root: The folder of the set.
        split: The name of the split.
        number: The number of the shard in its split.
        samples: The number of samples that it must hold.

    Returns:
        What `write_shard` returned for it; None if the shard is missing or damaged.
    """
    root = Path(root)
    name = shard_name(split, number)
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
    """Write the manifest after all shards, so that the set counts. UserError if it does not match the files of the set."""
    where = Path(root) / "manifest.json"
    checked = Manifest.from_json(json.loads(canonical(manifest.to_json())), str(where))
    check_set(checked, root)
    write_atomic(where, json.dumps(manifest.to_json(), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")
