"""The manifest of a shard set: its dataclasses, built from JSON with every value checked.

Must not know equations, ranks or torch.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.config import UserError
from pidscale.plain import shown
from pidscale.records.format import DTYPE, MOST_SAMPLES, VERSION, shard_name
from pidscale.records.json_checks import are_numbers, canonical, checked_object, refuse_value

ROLES = ("input", "solution")
_SPLIT_NAME = re.compile(r"[a-z0-9_]{1,64}")
_SHARD_NAME = re.compile(r"[a-z0-9_]+-[0-9]{5}\.tar")
_LARGEST_FIELDS = 2**33  # bytes of a sample's fields: the largest size that the header of a USTAR member can state
_LARGEST_FILE = 2**63


@dataclass(frozen=True)
class ChannelInfo:
    """One channel of the joint field.

    Attributes:
        name: The name.
        unit: The physical unit; "1" for a dimensionless channel.
        role: "input" or "solution".
    """

    name: str
    unit: str
    role: str

    @staticmethod
    def from_json(data: object, where: str) -> ChannelInfo:
        """Build a channel from parsed JSON, whose place is `where`; UserError if it is not a channel."""
        channel = ChannelInfo(**checked_object(where, data, name=str, unit=str, role=str))
        if channel.role not in ROLES:
            refuse_value(where, "role", f"one of {', '.join(ROLES)} (found {shown(channel.role)})")
        return channel


@dataclass(frozen=True)
class ShardEntry:
    """One shard as the manifest lists it.

    Attributes:
        name: The file name of the tar.
        bytes: The size of the tar.
        samples: The number of samples.
        sha256: The SHA-256 of the tar, in hex.
        index_sha256: The SHA-256 of its index, in hex.
    """

    name: str
    bytes: int
    samples: int
    sha256: str
    index_sha256: str

    @staticmethod
    def from_json(data: object, where: str) -> ShardEntry:
        """Build an entry from parsed JSON, whose place is `where`; UserError if it is not an entry of a shard."""
        entry = ShardEntry(
            **checked_object(where, data, name=str, bytes=int, samples=int, sha256=str, index_sha256=str)
        )
        if not _SHARD_NAME.fullmatch(entry.name):
            refuse_value(where, "name", f"a shard name such as train-00000.tar (found {shown(entry.name)})")
        if not 0 < entry.samples <= MOST_SAMPLES:
            refuse_value(where, "samples", f"from 1 to {MOST_SAMPLES} (found {shown(entry.samples)})")
        if not 0 < entry.bytes < _LARGEST_FILE:
            refuse_value(where, "bytes", f"the size of a file (found {shown(entry.bytes)})")
        return entry


@dataclass(frozen=True)
class Split:
    """One split of a set.

    Attributes:
        seeds: The range of seeds [first, last) of its samples.
        samples: The number of samples.
        shards: The shards in the order of the samples.
    """

    seeds: tuple[int, int]
    samples: int
    shards: tuple[ShardEntry, ...]

    @staticmethod
    def from_json(data: object, name: str, where: str) -> Split:
        """Build a split from parsed JSON, whose place is `where`.

        UserError if it is not a split, if its shards are not numbered from 0 on, or if their samples do not add up.
        """
        values = checked_object(where, data, seeds=list, samples=int, shards=list)
        if not are_numbers(values["seeds"], 2, int):
            refuse_value(where, "seeds", "two integers [first, last)")
        shards = tuple(ShardEntry.from_json(s, f"{where}, shard {i}") for i, s in enumerate(values["shards"]))
        for i, shard in enumerate(shards):  # so that no shard is listed twice or in two splits
            if shard.name != shard_name(name, i):
                refuse_value(f"{where}, shard {i}", "name", f"{shard_name(name, i)} (found {shard.name})")
        total = sum(s.samples for s in shards)
        if total != values["samples"] or total > MOST_SAMPLES:
            refuse_value(where, "samples", f"the sum over its shards, {total}, and at most {MOST_SAMPLES}")
        return Split((values["seeds"][0], values["seeds"][1]), values["samples"], shards)


@dataclass(frozen=True)
class Manifest:
    """The description of a set. All numbers are in physical units.

    Attributes:
        version: The version of the format.
        equation: The name of the equation.
        channels: The channels of the joint field.
        grid: {"kind", "shape": [Y, X], "extent": [Ly, Lx], "boundary"}.
        params: The ranges and the variant of the equation's parameters.
        normaliser: {"mean": [C], "std": [C]} over the train split.
        dtype: The type of the fields, "float32".
        splits: The splits by name.
        truth_residual: For each split, the root mean square of each norm of the stored fields' residual, and its largest
            value under "max_" + norm.
        request: What the set was made from, as its maker was asked.
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
        """The SHA-256 of everything that training sees: equation, channels, grid, parameters, normaliser, shard hashes."""
        seen = {k: v for k, v in asdict(self).items() if k not in ("truth_residual", "request")}
        return hashlib.sha256(canonical(seen)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, including the data hash."""
        return {**asdict(self), "data_hash": self.data_hash}

    @staticmethod
    def from_json(data: object, where: str = "manifest.json") -> Manifest:
        """Build a manifest from parsed JSON.

        Args:
            data: The parsed JSON.
            where: The file, for messages.

        Returns:
            The manifest.

        Raises:
            UserError: It is not a manifest of this version, or was changed; the message names the file and the key.
        """
        if isinstance(data, dict) and data.get("version", VERSION) != VERSION:
            refuse_value(where, "version", f"{VERSION}, the only known one (found {shown(data['version'])})")
        kinds: dict[str, type] = {"version": int, "equation": str, "channels": list, "grid": dict, "params": dict}
        kinds |= {"normaliser": dict, "dtype": str, "splits": dict, "truth_residual": dict, "request": dict}
        values = dict(checked_object(where, data, data_hash=str, **kinds))
        stated_hash = values.pop("data_hash")
        channels = enumerate(values["channels"])
        values["channels"] = tuple(ChannelInfo.from_json(c, f"{where}, channel {i}") for i, c in channels)
        for name in values["splits"]:
            if not _SPLIT_NAME.fullmatch(name):
                refuse_value(where, "splits", f"an object whose keys are names such as train (found {shown(name)})")
        values["splits"] = {k: Split.from_json(s, k, f"{where}, split '{k}'") for k, s in values["splits"].items()}
        manifest = Manifest(**values)
        _check_grid_and_normaliser(manifest, where)
        _check_room(manifest, where)
        if manifest.data_hash != stated_hash:
            raise UserError(f"{where}: data_hash does not match the contents, so the file was edited; restore it")
        return manifest


def _check_grid_and_normaliser(manifest: Manifest, where: str) -> None:
    """Raise UserError unless grid, channels, normaliser and dtype are what they must be."""
    grid = checked_object(f"{where}, grid", manifest.grid, kind=str, shape=list, extent=list, boundary=str)
    if not are_numbers(grid["shape"], 2, int) or min(grid["shape"]) < 1:
        refuse_value(f"{where}, grid", "shape", "two integers [Y, X], each at least 1")
    if not are_numbers(grid["extent"], 2, (int, float)):
        refuse_value(f"{where}, grid", "extent", "two numbers [Ly, Lx]")
    if not manifest.channels:
        refuse_value(where, "channels", "a list of at least one channel")
    checked_object(f"{where}, normaliser", manifest.normaliser, mean=list, std=list)
    for key, values in manifest.normaliser.items():
        if not are_numbers(values, len(manifest.channels), (int, float)) or (key == "std" and min(values) <= 0):
            refuse_value(f"{where}, normaliser", key, f"{len(manifest.channels)} finite numbers (std: above 0)")
    if manifest.dtype != DTYPE:
        refuse_value(where, "dtype", f"'{DTYPE}' (found {shown(manifest.dtype)})")


def _check_room(manifest: Manifest, where: str) -> None:
    """Raise UserError unless the fields fit into their tars, so that the sizes of files bound what a reader allocates."""
    size = 4 * math.prod(manifest.shape)
    if size >= _LARGEST_FIELDS:
        expected = f"such that a sample fits a member of a tar (found {shown(manifest.shape)})"
        refuse_value(f"{where}, grid", "shape", expected)
    for name, split in manifest.splits.items():
        for i, entry in enumerate(split.shards):
            if entry.samples * size > entry.bytes:
                least = f"at least {entry.samples * size}, for {entry.samples} samples of shape {manifest.shape}"
                refuse_value(f"{where}, split '{name}', shard {i}", "bytes", f"{least} (found {entry.bytes})")
