"""The table of docs/demo.md, and its main rows in the README, from the rows of benchmarks.studies.demo."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import source, table
from benchmarks.report import Row

WHOLE = "<!-- rows: rebuilt by", "<!-- end of rows -->"
MAIN = "<!-- results: rebuilt by", "<!-- end of results -->"
COLUMNS = {
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "boundary_rms": "boundary",
    "solution_error": "solution error",
    "swd_excess": "SWD excess",
    "ms_per_sample": "ms / sample",
}
SHORT = ("solution_error", "residual_dual", "swd_excess", "ms_per_sample")
ROWS = {  # of the README, and what each is
    "trivial": "a pressure of 0",
    "teacher-heun-18": "the teacher",
    "student-lambda0-head0": "one call, without the residual",
    "student-head0": "one call, with the residual: PIDDM as published",
    "student": "**one call, with the residual and 4 solver steps**",
    "sample-then-solve": "one call, and a numerical solver for the pressure",
}


def _value(row: Row, key: str) -> str:
    return f"{row[key]:.2g}" if row[key] < 0.01 else f"{row[key]:.3g}"


def _line(row: Row) -> list[str]:
    name = f"**{row['method']}**" if row["method"] == "student" else row["method"]
    values = [_value(row, key) for key in COLUMNS]
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


def summary(result: dict[str, Any]) -> str:
    """Return the main rows of the table."""
    rows = {row["method"]: row for row in result["rows"]}
    lines = [
        [words, str(rows[name]["nfe"]), *(_value(rows[name], key) for key in SHORT)] for name, words in ROWS.items()
    ]
    heads = ["Darcy flow, 32 x 32 points", "network calls", *(COLUMNS[key] for key in SHORT)]
    runs = f", means of {len(result['runs'])} runs" if len(result.get("runs", [])) > 1 else ""
    return f"""{table(heads, lines)}

*Solution error*: error of the pressure relative to a numerical solution for the same permeability. *Residual dual*: what
is left of the equation in a norm close to that error; 1 for a pressure of 0. *SWD excess*: distance to held-out truths beyond
that of other truths. {result["meta"]["machine"]}{runs}."""
