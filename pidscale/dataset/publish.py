"""From samples to a set that counts: a shard made or taken as it stands, the floors of its residuals, the manifest.

What makes a set of an equation and what converts a file both end here. Must not know where samples come from.
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

FIRST_COUNTER = {"train": 0, "test": 2**40}  # seeds of the splits never meet


@dataclass(frozen=True)
class FinishedShard:
    """What making a shard gives back: its entry, its statistics, and of what is stored per norm the residuals [samples].

    digests: of each sample's fields, from the checksums of their rows.
    """

    split: str
    number: int
    entry: ShardEntry
    stats: Stats
    residuals: dict[str, list[float]]
    digests: tuple[str, ...]


def make_or_take(root: str | Path, split: str, number: int, count: int, samples: Iterable[Sample]) -> FinishedShard:
    """Write one shard of `count` samples, or take the true one that an earlier run left (then `samples` is not read)."""
    done = finished_shard(root, split, number, count)
    entry, stats = done or write_shard(root, split, number, samples)
    index = read_json(Path(root) / index_name(entry.name))
    norms = [sample["meta"]["residual"] for sample in index["samples"]]
    rows = (
        "".join(block for channel in sample["checksums"] for block in channel).encode() for sample in index["samples"]
    )
    digests = tuple(xxhash.xxh3_128_hexdigest(one) for one in rows)
    return FinishedShard(split, number, entry, stats, {name: [n[name] for n in norms] for name in norms[0]}, digests)


def manifest_of(pde: Pde, grid: Grid, request: dict[str, Any], made: Sequence[FinishedShard], remedy: str) -> Manifest:
    """The manifest of shards that are there.

    UserError with `remedy` for a channel without any variation, or for fields that stand in more than one split.
    """
    ordered = sorted(made, key=lambda one: one.number)
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
    """What a split is measured on, no other may hold: seeds that never meet do not prove that fields never do."""
    seen: dict[str, tuple[str, int]] = {}
    for split in sorted(by_split, key=FIRST_COUNTER.__getitem__):
        for number, digest in enumerate(digest for one in by_split[split] for digest in one.digests):
            where, other = seen.setdefault(digest, (split, number))
            if where != split:
                raise UserError(
                    f"{equation}: {split} sample {number} has the fields of {where} sample {other}; {remedy}"
                )


def _split(split: str, parts: list[FinishedShard]) -> Split:
    count, base = sum(one.entry.samples for one in parts), FIRST_COUNTER[split]
    return Split((base, base + count), count, tuple(one.entry for one in parts))


def _residuals(parts: list[FinishedShard]) -> dict[str, list[float]]:
    """Those of all shards, by norm."""
    return {name: [value for one in parts for value in one.residuals[name]] for name in parts[0].residuals}
