"""The format of a shard set, version 1: what its files are called, what stands in them, how they are checked.

    <root>/manifest.json            the whole set, written last: a set without it does not count
    <root>/train-00000.tar          samples: KEY.fields.npy (float32 [C, Y, X]) and KEY.json
    <root>/train-00000.index.json   byte offsets, checksums and parameters of that shard's samples

The contract in words is shards/README.md. Must not know equations, ranks or torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pidscale.config import UserError

VERSION = 1
ROW_BLOCK = 16  # rows of one channel under one checksum; the last block of a field may be shorter
DTYPE = "float32"  # little-endian
ROLES = ("input", "solution")
_SHARD_NAME = re.compile(r"[a-z0-9_]+-\d{5}\.tar")


def canonical(value: object) -> bytes:
    """Return the one JSON spelling of a value (sorted keys, no spaces): what is hashed and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard, for example train-00000.tar."""
    return f"{split}-{number:05d}.tar"


def index_name(shard: str) -> str:
    """Return the file name of a shard's index, for example train-00000.index.json."""
    return shard.removesuffix(".tar") + ".index.json"


def sample_key(number: int) -> str:
    """Return the key of a split's n-th sample: zero-padded, without dots."""
    return f"{number:08d}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(where: str, data: object, **kinds: type) -> dict[str, Any]:
    """Return data if it is an object with exactly these keys and kinds; UserError with file and key if not."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(data).__name__}; make the set again")
    for key in kinds:
        if key not in data:
            raise UserError(f"{where}: key '{key}' is missing; restore the file or make the set again")
    for key, value in data.items():
        if key not in kinds:
            raise UserError(f"{where}: unknown key '{key}'; expected only {', '.join(sorted(kinds))}")
        if not isinstance(value, kinds[key]):
            raise UserError(f"{where}: key '{key}' must be {kinds[key].__name__}, found {type(value).__name__}")
    return data


def _wrong(where: str, key: str, expected: str) -> UserError:
    return UserError(f"{where}: key '{key}' must be {expected}; restore the file or make the set again")


def _numbers(values: list[Any], count: int, kind: type | tuple[type, ...]) -> bool:
    right = all(isinstance(v, kind) and not isinstance(v, bool) for v in values)
    return right and len(values) == count and all(map(math.isfinite, values))


@dataclass(frozen=True)
class ChannelInfo:
    """One channel of the fields: its name, its unit ("1" if dimensionless) and its role, "input" or "solution"."""

    name: str
    unit: str
    role: str

    @staticmethod
    def from_json(data: object, where: str) -> ChannelInfo:
        """Build from parsed JSON; UserError if it is not one."""
        channel = ChannelInfo(**_checked(where, data, name=str, unit=str, role=str))
        if channel.role not in ROLES:
            raise _wrong(where, "role", f"one of {', '.join(ROLES)} (found '{channel.role}')")
        return channel


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the manifest lists it: file name, size in bytes, samples, SHA-256 of the tar and of its index."""

    name: str
    bytes: int
    samples: int
    sha256: str
    index_sha256: str

    @staticmethod
    def from_json(data: object, where: str) -> ShardEntry:
        """Build from parsed JSON; UserError if it is not one, or if its name is not a plain shard name."""
        entry = ShardEntry(**_checked(where, data, name=str, bytes=int, samples=int, sha256=str, index_sha256=str))
        if not _SHARD_NAME.fullmatch(entry.name):
            raise _wrong(where, "name", f"a shard name such as train-00000.tar (found '{entry.name}')")
        return entry


@dataclass(frozen=True)
class Split:
    """One split: its range of seeds [lo, hi), its samples, its shards in the order of the samples."""

    seeds: tuple[int, int]
    samples: int
    shards: tuple[ShardEntry, ...]

    @staticmethod
    def from_json(data: object, where: str) -> Split:
        """Build from parsed JSON; UserError if it is not one, or if the shards do not add up to its samples."""
        values = _checked(where, data, seeds=list, samples=int, shards=list)
        if not _numbers(values["seeds"], 2, int):
            raise _wrong(where, "seeds", "two integers [lo, hi)")
        shards = tuple(ShardEntry.from_json(s, f"{where}, shard {i}") for i, s in enumerate(values["shards"]))
        if sum(s.samples for s in shards) != values["samples"]:
            raise _wrong(where, "samples", f"the sum over its shards, {sum(s.samples for s in shards)}")
        return Split((values["seeds"][0], values["seeds"][1]), values["samples"], shards)


@dataclass(frozen=True)
class Manifest:
    """A whole set. Every number in it is physical (not normalised).

    grid: {"kind", "shape": [Y, X], "extent": [Ly, Lx], "boundary"}. params: ranges and variant of the equation.
    normaliser: {"mean": [C], "std": [C]} over the train split only. truth_residual: per split, the rms of each norm of
    the stored fields' residual and its largest value under "max_" + norm. request: what was asked for, verbatim.
    """

    version: int
    equation: str
    channels: tuple[ChannelInfo, ...]
    grid: dict[str, Any]
    params: dict[str, Any]
    normaliser: dict[str, list[float]]
    dtype: str
    splits: dict[str, Split]
    truth_residual: dict[str, dict[str, float]]
    request: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, Y, X) of every sample."""
        height, width = self.grid["shape"]
        return len(self.channels), height, width

    @property
    def data_hash(self) -> str:
        """SHA-256 over all that training sees: equation, channels, grid, parameters, normaliser, shard hashes."""
        seen = {k: v for k, v in asdict(self).items() if k not in ("truth_residual", "request")}
        return hashlib.sha256(canonical(seen)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with the data hash."""
        return {**asdict(self), "data_hash": self.data_hash}

    @staticmethod
    def from_json(data: object, where: str = "manifest.json") -> Manifest:
        """Build from parsed JSON; UserError names the file, the key and what was expected."""
        if isinstance(data, dict) and data.get("version", VERSION) != VERSION:
            raise _wrong(where, "version", f"{VERSION}, the only one this program reads (found {data['version']!r})")
        kinds: dict[str, type] = {"version": int, "equation": str, "channels": list, "grid": dict, "params": dict}
        kinds |= {"normaliser": dict, "dtype": str, "splits": dict, "truth_residual": dict, "request": dict}
        values = dict(_checked(where, data, data_hash=str, **kinds))
        stated = values.pop("data_hash")
        channels = enumerate(values["channels"])
        values["channels"] = tuple(ChannelInfo.from_json(c, f"{where}, channel {i}") for i, c in channels)
        values["splits"] = {k: Split.from_json(s, f"{where}, split '{k}'") for k, s in values["splits"].items()}
        manifest = Manifest(**values)
        _check_grid_and_normaliser(manifest, where)
        try:
            found = manifest.data_hash
        except ValueError:
            raise _wrong(where, "params", "without numbers that are not finite") from None
        if found != stated:
            raise UserError(f"{where}: data_hash does not match its contents; it was edited: restore it")
        return manifest


def _check_grid_and_normaliser(manifest: Manifest, where: str) -> None:
    grid = _checked(f"{where}, grid", manifest.grid, kind=str, shape=list, extent=list, boundary=str)
    if not _numbers(grid["shape"], 2, int):
        raise _wrong(f"{where}, grid", "shape", "two integers [Y, X]")
    if not _numbers(grid["extent"], 2, (int, float)):
        raise _wrong(f"{where}, grid", "extent", "two numbers [Ly, Lx]")
    _checked(f"{where}, normaliser", manifest.normaliser, mean=list, std=list)
    for key, values in manifest.normaliser.items():
        if not _numbers(values, len(manifest.channels), (int, float)) or (key == "std" and min(values) <= 0):
            raise _wrong(f"{where}, normaliser", key, f"{len(manifest.channels)} finite numbers (std: above 0)")
    if manifest.dtype != DTYPE:
        raise _wrong(where, "dtype", f"'{DTYPE}' (found '{manifest.dtype}')")


def parsed(data: bytes, where: str) -> Any:
    """Return parsed JSON; UserError if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); restore the file or make the set again") from None


def read_json(path: Path) -> Any:
    """Return the parsed file; UserError if it is not JSON."""
    return parsed(path.read_bytes(), str(path))


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file that is there whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
