"""The two tables of docs/sizes.md, from what benchmarks.speed.sizes computed and measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import groups, plain, source, table
from benchmarks.report import Row

PLANS = "<!-- plans: rebuilt by", "<!-- end of plans -->"
STEPS = "<!-- steps: rebuilt by", "<!-- end of steps -->"
GIB = 2**30


def _plan(rows: list[Row]) -> list[str]:
    """The line of one network: both phases on each grid."""
    first = rows[0]
    name = f"`{first['model']}_{first['size']}`"
    each = [f"{plain(row['teacher'] / GIB, 2)}, {plain(row['distill'] / GIB, 2)}" for row in rows]
    return [name, f"{plain(first['parameters'] / 1e6)} M", *each]


def plans(result: dict[str, Any]) -> str:
    """Return the memory plans."""
    rows = [row | {"name": (row["model"], row["size"])} for row in result["plans"]]
    points = list(dict.fromkeys(row["points"] for row in rows))
    heads = ["network", "parameters", *(f"{side} x {side}" for side in points)]
    return f"""{table(heads, (_plan(own) for own in groups(rows, "name").values()))}

GiB of one CPU worker: teacher, distillation. Float32, micro-batches of 16, two channels, default settings.
{source("sizes")}."""


def steps(result: dict[str, Any]) -> str:
    """Return the times of steps."""
    lines = [
        [
            f"`{row['model']}_{row['size']}`",
            f"{row['points']} x {row['points']}",
            plain(row["teacher_seconds"], 2),
            plain(row["student_seconds"], 2),
            plain(row["call_ms"], 2),
        ]
        for row in result["steps"]
    ]
    heads = ["network", "points", "teacher, s a step", "student, s a step", "a call, ms a sample"]
    batch = result["steps"][0]["batch"]
    meta = result["meta"]
    return f"""{table(heads, lines)}

One core, {batch} samples a step, Darcy flow: seconds of processor time, medians of {meta["repeats"]} steps.
{meta["machine"]}, torch {meta["versions"]["torch"]}. {source("sizes")}."""
