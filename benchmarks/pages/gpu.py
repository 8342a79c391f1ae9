"""docs/gpu.md, from what benchmarks.speed.gpu measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import table
from benchmarks.report import Row

HEADS = ["part", "of", "points", "precision", "batch", "fields/s", "share"]


def _line(row: Row) -> list[str]:
    share = f"{row['share']:.1%}" if "share" in row else f"{row['ms']:.2f} ms a sample"
    values = [row["part"], row["model"], str(row["points"]), row["precision"], str(row["batch"])]
    return [*values, f"{row['fields_per_second']:.1f}", share]


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    meta = result["meta"]
    peaks = ", ".join(f"{value / 1e12:.2f} TFLOP/s in {name}" for name, value in meta["peak_flops"].items())
    return f"""# One device

`python -m benchmarks.speed.gpu`, whose head says what a share is of. {meta["device"]}, torch
{meta["versions"]["torch"]}: {peaks}; a copy moves {meta["copy_bytes_per_second"] / 1e9:.1f} GB/s.

{table(HEADS, map(_line, result["rows"]))}
"""
