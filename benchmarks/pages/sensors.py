"""The table of sensors between grid points in docs/tasks.md, from what benchmarks.studies.sensors measured."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from benchmarks.pages.builder import groups, number, source, table
from benchmarks.report import Row

MARKERS = "<!-- sensors: rebuilt by", "<!-- end of sensors -->"


def _range(values: list[float]) -> str:
    """Text of numbers of several seeds: their mean, and the least and the greatest."""
    if len(values) == 1:
        return number(values[0], 2)
    return f"{number(fmean(values), 2)} ({number(min(values), 2)} to {number(max(values), 2)})"


def _lines(pde: str, way: str, rows: list[Row]) -> list[list[str]]:
    """The lines of one way to read the sensors of an equation, a line for each channel."""
    lines = []
    for name in (key.removeprefix("error_") for key in rows[0] if key.startswith("error_")):
        ratio, nearer = "-", "-"
        if way != "nearest":
            ratio = _range([row[f"ratio_{name}"] for row in rows])
            nearer = f"{fmean(row[f'nearer_{name}'] for row in rows):.0%}"
        lines.append([pde, way, name, number(fmean(row[f"error_{name}"] for row in rows)), ratio, nearer])
    return lines


def page(result: dict[str, Any]) -> str:
    """Return the table."""
    meta, rows = result["meta"], result["rows"]
    heads = ["student", "readings", "channel", "error", "ratio to *nearest*", "fields nearer than by *nearest*"]
    lines = [
        line
        for pde, own in groups(rows, "pde").items()
        for way, same in groups(own, "way").items()
        for line in _lines(pde, way, same)
    ]
    seeds = ", ".join(map(str, groups(rows, "seed")))
    moved = {row["pde"]: row["moved"] for row in rows}
    reads = ", ".join(f"the {channel} ({pde})" for pde, channel in {row["pde"]: row["reads"] for row in rows}.items())
    moves = ", ".join(f"{value:.2g} ({pde})" for pde, value in moved.items())
    return f"""{table(heads, lines)}

Means over students of seeds {seeds}, ratios with the least and the greatest of the seeds.
{rows[0]["n"]} fields that no training saw; {rows[0]["sensors"]} sensors at random places read {reads},
without noise. *between*: `points` reads where the sensors are. *nearest*: each reading is moved to the nearest grid
point. *own sigma*: moved too, with a sigma as large as the error of the move, whose root mean square over the truths is
{moves} standard deviations of the channel. A truth between its grid points is its cubic
spline. Errors are relative L2 distances to the truth; searches have {meta["starts"]} starts of {meta["steps"]} evaluations.
{meta["machine"]}. {source("sensors")}."""
