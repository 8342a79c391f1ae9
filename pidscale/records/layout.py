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
import reprlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pidscale.config import UserError

VERSION = 1
ROW_BLOCK = 16  # rows of one channel under one checksum; the last block of a field may be shorter
DTYPE = "float32"  # little-endian
ROLES = ("input", "solution")
_SPLIT_NAME = re.compile(r"[a-z0-9_]{1,64}")
_SHARD_NAME = re.compile(r"[a-z0-9_]+-[0-9]{5}\.tar")
_MOST_SAMPLES = 10**8  # of a split: keys have 8 digits
_LARGEST_FIELDS = 2**33  # bytes of a sample's fields: what the header of a USTAR member can say
_LARGEST_FILE = 2**63
_spelled = reprlib.Repr()
_spelled.maxstring = _spelled.maxother = _spelled.maxlong = 80


def shown(value: object) -> str:
    """Return a value as a message shows it: in one short line, whatever it is."""
    return _spelled.repr(value)


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
            raise UserError(f"{where}: unknown key {shown(key)}; expected only {', '.join(sorted(kinds))}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise UserError(f"{where}: key '{key}' must be {kinds[key].__name__}, found {type(value).__name__}")
        if isinstance(value, str) and not value.isprintable():  # they come to stand in messages of one line
            raise _wrong(where, key, f"printable characters only (found {shown(value)})")
    return data


def _wrong(where: str, key: str, expected: str) -> UserError:
    return UserError(f"{where}: key '{key}' must be {expected}; restore the file or make the set again")


def is_number(value: object, kind: type | tuple[type, ...] = (int, float)) -> bool:
    """Whether a value out of JSON is a number, not true or false, that a float can hold (integers can be far beyond)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return isinstance(value, kind) and abs(value) <= sys.float_info.max


def _numbers(values: list[Any], count: int, kind: type | tuple[type, ...]) -> bool:
    return len(values) == count and all(is_number(v, kind) for v in values)


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
            raise _wrong(where, "role", f"one of {', '.join(ROLES)} (found {shown(channel.role)})")
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
            raise _wrong(where, "name", f"a shard name such as train-00000.tar (found {shown(entry.name)})")
        if not 0 < entry.samples <= _MOST_SAMPLES:
            raise _wrong(where, "samples", f"from 1 to {_MOST_SAMPLES} (found {shown(entry.samples)})")
        if not 0 < entry.bytes < _LARGEST_FILE:
            raise _wrong(where, "bytes", f"the size of a file (found {shown(entry.bytes)})")
        return entry


@dataclass(frozen=True)
class Split:
    """One split: its range of seeds [lo, hi), its samples, its shards in the order of the samples."""

    seeds: tuple[int, int]
    samples: int
    shards: tuple[ShardEntry, ...]

    @staticmethod
    def from_json(data: object, name: str, where: str) -> Split:
        """Build from parsed JSON; UserError if it is not one, if its shards are not named in turn or do not add up."""
        values = _checked(where, data, seeds=list, samples=int, shards=list)
        if not _numbers(values["seeds"], 2, int):
            raise _wrong(where, "seeds", "two integers [lo, hi)")
        shards = tuple(ShardEntry.from_json(s, f"{where}, shard {i}") for i, s in enumerate(values["shards"]))
        for i, shard in enumerate(shards):  # so none is listed twice, or by two splits
            if shard.name != shard_name(name, i):
                raise _wrong(f"{where}, shard {i}", "name", f"{shard_name(name, i)} (found {shard.name})")
        total = sum(s.samples for s in shards)
        if total != values["samples"] or total > _MOST_SAMPLES:
            raise _wrong(where, "samples", f"the sum over its shards, {total}, and at most {_MOST_SAMPLES}")
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
    def entries(self) -> list[ShardEntry]:
        """The shards of all splits."""
        return [entry for split in self.splits.values() for entry in split.shards]

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
            raise _wrong(where, "version", f"{VERSION}, the only one known here (found {shown(data['version'])})")
        kinds: dict[str, type] = {"version": int, "equation": str, "channels": list, "grid": dict, "params": dict}
        kinds |= {"normaliser": dict, "dtype": str, "splits": dict, "truth_residual": dict, "request": dict}
        values = dict(_checked(where, data, data_hash=str, **kinds))
        stated = values.pop("data_hash")
        channels = enumerate(values["channels"])
        values["channels"] = tuple(ChannelInfo.from_json(c, f"{where}, channel {i}") for i, c in channels)
        for name in values["splits"]:
            if not _SPLIT_NAME.fullmatch(name):
                raise _wrong(where, "splits", f"an object whose keys are names such as train (found {shown(name)})")
        values["splits"] = {k: Split.from_json(s, k, f"{where}, split '{k}'") for k, s in values["splits"].items()}
        manifest = Manifest(**values)
        _check_grid_and_normaliser(manifest, where)
        _check_room(manifest, where)
        try:
            own = manifest.data_hash
        except RecursionError:
            raise UserError(f"{where}: nested too deeply; restore the file or make the set again") from None
        if own != stated:
            raise UserError(f"{where}: data_hash does not match its contents; it was edited: restore it")
        return manifest


def _check_grid_and_normaliser(manifest: Manifest, where: str) -> None:
    grid = _checked(f"{where}, grid", manifest.grid, kind=str, shape=list, extent=list, boundary=str)
    if not _numbers(grid["shape"], 2, int) or min(grid["shape"]) < 1:
        raise _wrong(f"{where}, grid", "shape", "two integers [Y, X], each at least 1")
    if not _numbers(grid["extent"], 2, (int, float)):
        raise _wrong(f"{where}, grid", "extent", "two numbers [Ly, Lx]")
    if not manifest.channels:
        raise _wrong(where, "channels", "a list of at least one channel")
    _checked(f"{where}, normaliser", manifest.normaliser, mean=list, std=list)
    for key, values in manifest.normaliser.items():
        if not _numbers(values, len(manifest.channels), (int, float)) or (key == "std" and min(values) <= 0):
            raise _wrong(f"{where}, normaliser", key, f"{len(manifest.channels)} finite numbers (std: above 0)")
    if manifest.dtype != DTYPE:
        raise _wrong(where, "dtype", f"'{DTYPE}' (found {shown(manifest.dtype)})")


def _check_room(manifest: Manifest, where: str) -> None:
    """Fields have to fit their tars: the sizes of files, which are looked at, so bound what is ever allocated."""
    size = 4 * math.prod(manifest.shape)
    if size >= _LARGEST_FIELDS:
        fits = f"such that a sample fits a member of a tar (found {shown(manifest.shape)})"
        raise _wrong(f"{where}, grid", "shape", fits)
    for name, split in manifest.splits.items():
        for i, entry in enumerate(split.shards):
            if entry.samples * size > entry.bytes:
                least = f"at least {entry.samples * size}, for {entry.samples} samples of shape {manifest.shape}"
                raise _wrong(f"{where}, split '{name}', shard {i}", "bytes", f"{least} (found {entry.bytes})")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value


def parsed(data: bytes, where: str) -> Any:
    """Return parsed JSON; UserError if it is none, or holds numbers that are not finite."""
    try:
        return json.loads(data, parse_float=_finite, parse_constant=_finite)
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
