"""docs/rollout.md, from what benchmarks/rollout.py measured."""

from __future__ import annotations

from typing import Any

from benchmarks.report import table


def _sources(rows: list[dict[str, Any]]) -> str:
    return table(
        ["source", "K", "R", "samples/s (low to high)", "the student waits (low to high)"],
        [
            [
                row["source"],
                str(row["calls"]),
                str(row["reuse"]),
                f"{row['samples_per_second']:.0f} ({row['low']:.0f} to {row['high']:.0f})",
                f"{row['wait_share']:.1%} ({row['wait_low']:.1%} to {row['wait_high']:.1%})",
            ]
            for row in rows
        ],
    )


def _calls(rows: list[dict[str, Any]]) -> str:
    return table(
        ["samples in a call", "endpoints/s (low to high)", "ratio to 1 (median over turns)"],
        [
            [
                str(row["chunk"]),
                f"{row['endpoints_per_second']:.1f} ({row['low']:.1f} to {row['high']:.1f})",
                f"{row['ratio']:.2f}",
            ]
            for row in rows
        ],
    )


def page(result: dict[str, Any]) -> str:
    """The page."""
    meta, points = result["meta"], result["meta"]["points"]
    return f"""# What endpoints cost, by where they come from

`python -m benchmarks.rollout`, {meta["repeats"]} turns; UNet tiny on Poisson, {points} x {points} points, batches of
{meta["batch"]}, ZeRO 1, both norms of the residual, a ring of {meta["ring"]} rows; {meta["steps"]} steps after
{meta["warm"]} to warm up. {meta["machine"]}. [sources.md](sources.md) says what the sources are.

## By source

K calls of the teacher for an endpoint (`dpm2m`), R uses of it. Both cores for each: two threads of the student (`inline`,
`shards`), or one of the student and one of the teacher (`ring`, `actors`). Samples of `shards` are made beforehand, which is
not counted.

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
