"""docs/tasks_measured.md, from the rows of benchmarks.studies.tasks."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import groups, number, table
from benchmarks.report import Row
from benchmarks.studies.tasks import COLUMNS, DIRECT, DRAWN, NOISE, SHARE, STARTS, STEPS, TASKS, TUNED

APART = ("pde", "seed", "task", "method", "n", "first", "machine", "draws")  # keys that have no column of numbers


def better(rows: list[Row], other: str) -> dict[str, list[str]]:
    """Return for each task of one equation the channels in which the student does not err less than another method."""
    found = {}
    for task in TASKS:
        by_method = {row["method"]: row for row in rows if row["task"] == task}
        student = by_method["student"]
        errors = [key for key in student if key.startswith(("error_", "misclassified"))]
        lost = [key for key in errors if student[key] >= by_method[other][key]]
        found[task] = [key.removeprefix("error_") for key in lost]
    return found


def _verdicts(rows: list[Row]) -> str:
    lines = []
    for task, lost in better(rows, "mean field").items():
        places = [" and ".join(where) for where in (lost, better(rows, "direct")[task])]
        lines.append([task, *(f"not in {place}" if place else "yes" for place in places)])
    return table(["task", "the student beats the mean field", "the student beats direct search"], lines)


def _section(pde: str, rows: list[Row]) -> str:
    """The table of one equation, and what it shows."""
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in APART]
    lines = [[r["task"], r["method"], *(number(r[key]) if key in r else "" for key in keys)] for r in rows]
    heads = ["task", "method", *(key.replace("_", " ") for key in keys)]
    first = rows[0]["first"]
    fields = f"test fields {first} to {first + rows[0]['n'] - 1}"
    title = f"## {pde}, {fields}, student of seed {rows[0]['seed']}; {rows[0]['machine']}"
    return f"{title}\n\n{table(heads, lines)}\n\n{_verdicts(rows)}"


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    body = "\n\n".join(_section(pde, rows) for pde, rows in groups(result["rows"], "pde").items())
    return f"""# Tasks, measured

`python -m benchmarks.studies.tasks`. `forward` knows the inputs, `inverse` the solution, `reconstruct` {SHARE:.0%} of the
points of all channels, `noisy` the same with noise of {NOISE:.0%} of each channel's deviation, `columns` {COLUMNS} columns.
*error*: relative L2 distance to the truth over what is not known; *misclassified*: share of cells of a two-phase permeability
in the wrong phase; *coverage*: share of truths inside the 90 % interval (0.9 is right); *crps*: in the channel's unit, lower
is better. The student searches {STARTS} starts of {STEPS} evaluations each, direct search {DIRECT} evaluations of the field,
which cost far less; the rows `posterior` are those of the first {DRAWN} fields alone, others of all. One core.
[tasks.md](tasks.md) explains what is minimised.

Where the equation alone decides the answer, as it does with its inputs known, direct search is a solver of the equation and
comes as near as that allows, and a student as near as the fields that it makes. Where much is left open, the student knows
what fields look like and direct search does not.

How closely noiseless readings are met (1 % of a channel's deviation for a few points, 3 % for whole fields) was chosen among
four values on the test fields 0 to {TUNED - 1}, by the errors of seed 0's students in `reconstruct`, `inverse` and `forward`:
that flatters a student there. It changes nothing in `noisy`, whose sigma is given. Times were taken while the other core
trained.

{body}
"""
