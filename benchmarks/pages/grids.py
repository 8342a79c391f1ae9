"""docs/grids.md, from the rows of benchmarks.studies.grids."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import groups, number, source, table
from benchmarks.pages.heads import COLUMNS as MEASURES
from benchmarks.report import Row

COLUMNS = {**MEASURES, "ms_per_sample": "ms / sample"}


def _section(rows: list[Row]) -> str:
    """The table of one grid and seed."""
    first = rows[0]
    spent = next(row["train_seconds"] for row in rows if row["method"] == "student")
    lines = [[row["method"], str(row["nfe"]), *(number(row.get(key)) for key in COLUMNS)] for row in rows]
    heads = ["method", "calls", *COLUMNS.values()]
    title = f"## {first['points']} points, seed {first['seed']}"
    trained = f"{first['n_samples']} samples a row; training of teacher and student {spent:.0f} s."
    return f"{title}\n\n{trained}\n\n{table(heads, lines)}"


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    grids = groups(sorted(result["rows"], key=lambda row: int(row["points"])), "points").values()
    body = "\n\n".join(_section(rows) for grid in grids for rows in groups(grid, "seed").values())
    return f"""# Finer grids

What the demo's defaults reach for Darcy flow on more points than its own 32, by `python -m benchmarks.studies.grids`.
Nothing else of the training is set, except that a run of 128 points is shorter. The rows are named as in
[demo.md](demo.md): *student* and *student-lambda0* have 4 solver steps behind the network, *-head0* is the network alone,
*+head-K* has K steps ([head.md](head.md)). The weights of the residual grow with the number of points by a rule
([settings.md](settings.md)). Times a sample are comparable within a table only: other runs may have shared the machine.

{body}

{result["meta"]["machine"]}. {source("grids")}.
"""
