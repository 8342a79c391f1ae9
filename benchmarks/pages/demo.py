"""The table of results in the README, from what benchmarks.studies.demo read from the demo's report."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import source, table
from benchmarks.report import Row

BEGIN = "<!-- results: rebuilt by"
END = "<!-- end of results -->"
COLUMNS = {
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "boundary_rms": "boundary",
    "solution_error": "solution error",
    "swd_excess": "SWD excess",
    "ms_per_sample": "ms / sample",
}


def _line(row: Row) -> list[str]:
    name = f"**{row['method']}**" if row["method"] == "student" else row["method"]
    values = [f"{row[key]:.2g}" if row[key] < 0.01 else f"{row[key]:.3g}" for key in COLUMNS]
    return [name, str(row["nfe"]), *values, *(f"{ratio:.2f}" for ratio in row["variance_ratio"].values())]


def page(result: dict[str, Any]) -> str:
    """Return the table, with the circumstances under it."""
    rows = result["rows"]
    first = rows[0]
    student = next(row for row in rows if row["method"] == "student")
    of_seeds = ""
    if "spread" in student:
        spread = ", ".join(f"{COLUMNS[key]} {value:.2g}" for key, value in student["spread"].items())
        of_seeds = f" Means of {len(result['runs'])} runs; half the range of the student's figures: {spread}."
    meta = result["meta"]
    versions = meta["versions"]
    heads = ["method", "calls", *COLUMNS.values(), *(f"variance of {name}" for name in first["variance_ratio"])]
    return f"""{table(heads, map(_line, rows))}

{first["n_samples"]} samples a row, seeds {first["seeds"]}; {meta["machine"]}, torch {versions["torch"]},
commit {versions["commit"][:12]}; training of teacher and student {meta["train_seconds"]:.0f} s.{of_seeds}
{source("demo")}."""
