"""docs/rollout.md, from what benchmarks.speed.rollout measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import spread, table
from benchmarks.report import Row


def _sources(rows: list[Row]) -> str:
    heads = ["source", "K", "R", "samples/s (low to high)", "the student waits (low to high)"]
    lines = [
        [
            row["source"],
            str(row["calls"]),
            str(row["reuse"]),
            spread(row["samples_per_second"], row["low"], row["high"], ".0f"),
            spread(row["wait_share"], row["wait_low"], row["wait_high"], ".1%"),
        ]
        for row in rows
    ]
    return table(heads, lines)


def _calls(rows: list[Row]) -> str:
    heads = ["samples in a call", "endpoints/s (low to high)", "ratio to 1 (median over turns)"]
    lines = [
        [
            str(row["chunk"]),
            spread(row["endpoints_per_second"], row["low"], row["high"], ".1f"),
            f"{row['ratio']:.2f}",
        ]
        for row in rows
    ]
    return table(heads, lines)


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    meta = result["meta"]
    points = meta["points"]
    return f"""# What endpoints cost, by where they come from

How long a student waits for its teacher, for each source of endpoints: the figures behind the choice of `distill.source` and
`distill.reuse`. By `python -m benchmarks.speed.rollout`, {meta["repeats"]} turns;
UNet tiny on Poisson, {points} x {points} points, batches of
{meta["batch"]}, ZeRO 1, both norms of the residual, a buffer of {meta["buffer_rows"]} rows; {meta["steps"]} steps after
{meta["warm"]} to warm up. {meta["machine"]}. [sources.md](sources.md) says what the sources are.

## By source

K calls of the teacher for an endpoint (`dpm2m`), R uses of it. Both cores for each: two threads of the student (`inline`,
`shards`), or one of the student and one of the teacher (`thread`, `actors`). Samples of `shards` are made
beforehand, which is not counted.

{_sources(result["rows"])}

A thread or an actor hides waiting but adds no compute: here both are busy with `inline` too, so that samples a second
follow the work. They pay where the teacher's share is about that of the cores it has, or on devices of its own. With R = 1
the teacher is what everyone waits for, whoever runs it. In each turn `shards` follows `actors`, whose processes may still be
ending: read its samples a second as a lower bound.

## By samples in a call of the teacher

The teacher alone, one thread, K = 8. What a larger call saves is overhead of layers; from 16 samples on the arithmetic of the
convolutions limits it.

{_calls(result["endpoints"])}
"""
