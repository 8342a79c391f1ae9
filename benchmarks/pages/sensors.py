"""The table of sensors between grid points in docs/tasks.md, from what benchmarks.studies.sensors measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import number, source, table
from benchmarks.report import Row

MARKERS = "<!-- sensors: rebuilt by", "<!-- end of sensors -->"


def _lines(row: Row) -> list[list[str]]:
    first = row["way"] == "nearest"
    lines = []
    for name in (key.removeprefix("error_") for key in row if key.startswith("error_")):
        ratio = ["-", "-"] if first else [number(row[f"ratio_{name}"], 2), f"{row[f'nearer_{name}']:.0%}"]
        lines.append([row["pde"], row["way"], name, number(row[f"error_{name}"]), *ratio])
    return lines


def page(result: dict[str, Any]) -> str:
    """Return the table."""
    meta, rows = result["meta"], result["rows"]
    heads = ["student", "readings", "channel", "error", "ratio to *nearest*", "fields nearer than by *nearest*"]
    lines = [line for row in rows for line in _lines(row)]
    moved = {row["pde"]: row["moved"] for row in rows}
    reads = ", ".join(f"the {row['reads']} ({row['pde']})" for row in rows if row["way"] == "between")
    moves = ", ".join(f"{value:.2g} ({pde})" for pde, value in moved.items())
    return f"""{table(heads, lines)}

{rows[0]["n"]} fields that no training saw; {rows[0]["sensors"]} sensors at random places read {reads},
without noise. *between*: `points` reads where the sensors are. *nearest*: each reading is moved to the nearest grid
point. *own sigma*: moved too, with a sigma as large as the error of the move, whose root mean square over the truths is
{moves} standard deviations of the channel. A truth between its grid points is its cubic
spline. Errors are relative L2 distances to the truth; searches have {meta["starts"]} starts of {meta["steps"]} evaluations.
{meta["machine"]}. {source("sensors")}."""
