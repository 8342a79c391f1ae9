"""Finishes a set: writes a shard or reuses a finished one, and builds the manifest with the floors of the residuals.

Makers of sets, converters of files and makers of endpoints all end here. Must not know where samples come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.pde.residuals import floor_of
from pidscale.records.format import DTYPE, VERSION, index_name
from pidscale.records.json_checks import read_json
from pidscale.records.manifest import ChannelInfo, Manifest, ShardEntry, Split
from pidscale.records.write import Sample, Stats, finished_shard, merge_stats, write_shard

FIRST_COUNTER = {"train": 0, "test": 2**40}  # the seeds of the splits never overlap


@dataclass(frozen=True)
class FinishedShard:
    """A shard that is written, with what the manifest needs of it.

    Attributes:
        split: The split of the shard.
        number: Its number in the split.
        entry: Its entry in the manifest.
        stats: Count, mean and variance of its channels.
        residuals: The stored residuals of its samples, by norm.
        digests: A digest of the fields of each sample, from the checksums of their rows.
    """

    split: str
    number: int
    entry: ShardEntry
    stats: Stats
    residuals: dict[str, list[float]]
    digests: tuple[str, ...]


def ensure_shard(root: str | Path, split: str, number: int, count: int, samples: Iterable[Sample]) -> FinishedShard:
    """Write a shard, or reuse the valid one that an earlier run left.

    Args:
        root: The folder of the set.
        split: The split of the shard.
        number: Its number in the split.
        count: The number of its samples.
        samples: The samples; not read if the shard is reused.

    Returns:
        The shard.
    """
    reused = finished_shard(root, split, number, count)
    entry, stats = reused or write_shard(root, split, number, samples)
    index = read_json(Path(root) / index_name(entry.name))
    norms = [sample["meta"]["residual"] for sample in index["samples"]]
    residuals = {name: [one[name] for one in norms] for name in norms[0]}
    return FinishedShard(split, number, entry, stats, residuals, tuple(map(_digest, index["samples"])))


def _digest(sample: Mapping[str, Any]) -> str:
    """Return a digest of the fields of a sample, given its entry in the index."""
    checksums = "".join(block for channel in sample["checksums"] for block in channel)
    return xxhash.xxh3_128_hexdigest(checksums.encode())


def build_manifest(
    pde: Pde, grid: Grid, request: dict[str, Any], shards: Sequence[FinishedShard], remedy: str
) -> Manifest:
    """Build the manifest of finished shards.

    Args:
        pde: The equation.
        grid: The grid.
        request: What determines every byte of the set.
        shards: All shards of the set, in any order.
        remedy: What to do, for messages.

    Returns:
        The manifest.

    Raises:
        UserError: A channel is constant over the train split, or two splits hold the same fields.
    """
    ordered = sorted(shards, key=lambda one: one.number)
    by_split = {split: [one for one in ordered if one.split == split] for split in request["samples"]}
    stats = merge_stats([one.stats for one in by_split["train"]])
    for channel, std in zip(pde.channels, stats.std, strict=True):
        if std == 0:
            raise UserError(f"{pde.name}: channel '{channel.name}' is constant over the train split; {remedy}")
    _check_leaks(pde.name, by_split, remedy)
    return Manifest(
        version=VERSION,
        equation=pde.name,
        channels=tuple(ChannelInfo(c.name, c.unit, c.role) for c in pde.channels),
        grid=grid.describe(),
        params=request["params"],
        normaliser={"mean": list(stats.mean), "std": list(stats.std)},
        dtype=DTYPE,
        splits={split: _split(split, parts) for split, parts in by_split.items()},
        truth_residual={split: floor_of(_residuals(parts)) for split, parts in by_split.items()},
        request=request,
    )


def _check_leaks(equation: str, by_split: Mapping[str, list[FinishedShard]], remedy: str) -> None:
    """Raise UserError if two splits hold the same fields: distinct seeds do not prove that the fields are distinct."""
    seen: dict[str, tuple[str, int]] = {}
    for split in sorted(by_split, key=FIRST_COUNTER.__getitem__):
        for number, digest in enumerate(digest for one in by_split[split] for digest in one.digests):
            where, other = seen.setdefault(digest, (split, number))
            if where != split:
                raise UserError(
                    f"{equation}: {split} sample {number} has the same fields as {where} sample {other}; {remedy}"
                )


def _split(split: str, parts: list[FinishedShard]) -> Split:
    count = sum(one.entry.samples for one in parts)
    base = FIRST_COUNTER[split]
    return Split((base, base + count), count, tuple(one.entry for one in parts))


def _residuals(parts: list[FinishedShard]) -> dict[str, list[float]]:
    """Return the residuals of all shards, by norm."""
    return {name: [value for one in parts for value in one.residuals[name]] for name in parts[0].residuals}
