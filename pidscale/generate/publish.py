"""From samples to a set that counts: a shard made or taken as it stands, the floors of its residuals, the manifest.

What makes a set of an equation and what converts a file both end here. Must not know where samples come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.records.layout import DTYPE, VERSION, ChannelInfo, Manifest, ShardEntry, Split, index_name, read_json
from pidscale.records.write import Sample, Stats, finished_shard, merge_stats, write_shard

FIRST_COUNTER = {"train": 0, "test": 2**40}  # seeds of the splits never meet


@dataclass(frozen=True)
class Made:
    """What making a shard gives back: its entry, its statistics, and per norm the residuals [samples] of what is stored."""

    split: str
    number: int
    entry: ShardEntry
    stats: Stats
    residuals: dict[str, list[float]]


def make_or_take(root: str | Path, split: str, number: int, count: int, samples: Iterable[Sample]) -> Made:
    """Write one shard of `count` samples, or take the true one that an earlier run left (then `samples` is not read)."""
    done = finished_shard(root, split, number, count)
    entry, stats = done or write_shard(root, split, number, samples)
    index = read_json(Path(root) / index_name(entry.name))
    norms = [sample["meta"]["residual"] for sample in index["samples"]]
    return Made(split, number, entry, stats, {name: [n[name] for n in norms] for name in norms[0]})


def manifest_of(pde: Pde, grid: Grid, request: dict[str, Any], made: Sequence[Made], remedy: str) -> Manifest:
    """The manifest of shards that are there. UserError with `remedy` for a channel without any variation."""
    ordered = sorted(made, key=lambda one: one.number)
    by_split = {split: [one for one in ordered if one.split == split] for split in request["samples"]}
    stats = merge_stats([one.stats for one in by_split["train"]])
    for channel, std in zip(pde.channels, stats.std, strict=True):
        if std == 0:
            raise UserError(f"{pde.name}: channel '{channel.name}' is constant over the train split; {remedy}")
    return Manifest(
        version=VERSION,
        equation=pde.name,
        channels=tuple(ChannelInfo(c.name, c.unit, c.role) for c in pde.channels),
        grid=grid.describe(),
        params=request["params"],
        normaliser={"mean": list(stats.mean), "std": list(stats.std)},
        dtype=DTYPE,
        splits={split: _split(split, parts) for split, parts in by_split.items()},
        truth_residual={split: _floor(parts) for split, parts in by_split.items()},
        request=request,
    )


def _split(split: str, parts: list[Made]) -> Split:
    count, base = sum(one.entry.samples for one in parts), FIRST_COUNTER[split]
    return Split((base, base + count), count, tuple(one.entry for one in parts))


def _floor(parts: list[Made]) -> dict[str, float]:
    """Per norm, the rms over all samples and, under "max_" + norm, the largest."""
    floor: dict[str, float] = {}
    for name in parts[0].residuals:
        values = np.array([v for one in parts for v in one.residuals[name]])
        floor |= {name: float(np.sqrt(np.mean(values**2))), f"max_{name}": float(values.max())}
    return floor
