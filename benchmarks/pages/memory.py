"""docs/split_memory.md, from what benchmarks.speed.memory measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import source, table
from benchmarks.report import Row

HEADS = ["model", "step", "space", "fixed", "peak", "1.15 (fixed + A / P)", "ratio"]
MIB = 2**20


def _line(row: Row) -> list[str]:
    sizes = [f"{row[key] / MIB:.0f}" for key in ("fixed", "peak", "allowed")]
    return [row["model"], row["step"], str(row["space"]), *sizes, f"{row['ratio']:.2f}"]


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    meta = result["meta"]
    alone, shared = result["wall"]
    limit = f"{meta['wall_limit'] / 2**30:.1f} GiB"
    return f"""# Memory where a field is shared

How the memory of a worker falls when several share each field ([split.md](split.md)), and a field that is too large for one
process. By `python -m benchmarks.speed.memory`. [sizes.md](sizes.md) has the memory of whole fields.

## Peak of a rank at {meta["points"]} x {meta["points"]}

Resident set sizes of fresh processes in MiB; networks `tiny`, {meta["batch"]} samples, Poisson. `fixed` is the peak of those
processes at {meta["smallest"]} x {meta["smallest"]}: libraries, weights, optimiser. A is the peak less that at space = 1; a
rank of P should need `fixed + A / P`; the last column is what it needs over that. Freed memory goes back to the system
at once (`MALLOC_MMAP_THRESHOLD_`): by itself the C library keeps blocks of middling size, of which tiles have more.

{table(HEADS, map(_line, result["rows"]))}

## The wall at {meta["wall_points"]} x {meta["wall_points"]}

A distillation of one step on one sample (UNet tiny without attention) in processes that may map {limit} each.

One process. The plan: {alone["plan"]}. Its warning: "{alone["warning"]}". What came of it: **{alone["outcome"]}**

Four that share the field. The plan: {shared["plan"]}. Its warning: {shared["warning"] or "none"}. What came of it:
**{shared["outcome"]}**, at {shared["peak"] / MIB:.0f} MiB of the first rank.

{meta["machine"]}. {source("memory")}.
"""
