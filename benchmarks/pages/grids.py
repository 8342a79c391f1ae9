"""docs/grids.md, from the rows of benchmarks.studies.grids."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import groups, number, source, table
from benchmarks.report import Row

COLUMNS = {
    "solution_error": "solution error",
    "residual_dual": "dual",
    "residual_l2": "l2",
    "swd_excess": "SWD excess",
    "phase_error": "phase error",
    "ms_per_sample": "ms / sample",
}


def _section(rows: list[Row]) -> str:
    """The table of one grid and seed."""
    first = rows[0]
    spent = {row["method"]: row["train_seconds"] for row in rows}
    lines = [[row["method"], str(row["nfe"]), *(number(row.get(key)) for key in COLUMNS)] for row in rows]
    heads = ["method", "calls", *COLUMNS.values()]
    title = f"## {first['points']} points, seed {first['seed']}"
    trained = f"{first['n_samples']} samples a row; training of teacher and student {spent['student']:.0f} s."
    return f"{title}\n\n{trained}\n\n{table(heads, lines)}"


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    grids = groups(sorted(result["rows"], key=lambda row: int(row["points"])), "points").values()
    body = "\n\n".join(_section(rows) for grid in grids for rows in groups(grid, "seed").values())
    return f"""# Finer grids

What the demo's defaults reach for Darcy flow on more points than the README's 32, by `python -m benchmarks.studies.grids`.
Only the number of points is set; the run of 128 points is shorter. The rows are those of the README's table: *student*
and *student-lambda0* have 4 solver steps behind the network, *-head0* is the network alone, *+head-K* has K steps
([head.md](head.md)). The weights of the residual follow the grid by a rule, so that they weigh on every grid what was
chosen on 32 points ([settings.md](settings.md)).

{body}

{result["meta"]["machine"]}. {source("grids")}.
"""
