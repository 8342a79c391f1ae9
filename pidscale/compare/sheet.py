"""The table of a comparison as JSON, as CSV, and as one HTML page that loads nothing from elsewhere. Knows no methods."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pidscale.compare.settings import LAMBDA0
from pidscale.compare.tables import MEASURES
from pidscale.figures.compare import pareto_figure
from pidscale.figures.embedded import html_image
from pidscale.figures.fields import field_figure
from pidscale.files import write_atomic
from pidscale.ops.grid import Grid
from pidscale.page.html import Html, Spread, Title, note, page, table, tag
from pidscale.pde.base import Pde, Samples
from pidscale.plain import json_text

Row = dict[str, Any]
SHOWN = 2  # samples of a row in a picture
PICTURED = 8  # rows in one picture
TITLES = {key: title for key, title in MEASURES.items() if key not in ("swd", "feature_distance")}
_EXPLAINED = """Every method has the same teacher, the same noise and the same held-out truths. Residuals are relative to the
equation's own scale. `truth` is the floor of residuals and of the solution error, `trivial` has a null solution; an excess is
what a distance has beyond that of two sets of truths. Numbers are means over seeds, small ones the standard deviation. A
click on a title sorts. `NAME+head-4` is NAME with four solver steps of the equation behind it, `NAME+solve` with the
numerical solution of its inputs."""
_PAID = {
    "further_seconds": Title("further seconds", "seconds of training in addition to those of the teacher"),
    "teacher": Title(
        "samples to pay, teacher", "from which on training and sampling take less time than the teacher's"
    ),
    "solver": Title(
        "samples to pay, solver", "from which on training and sampling take less time than a numerical solver"
    ),
}


def means(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield one row for each equation, task and method: means over seeds, and in `spread` their standard deviations.

    Args:
        rows: Rows of single seeds.

    Yields:
        The rows in the order of their first seed. `spread` is empty for a single seed.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["equation"], row["task"], row["method"]), []).append(row)
    for (equation, task, method), own in groups.items():
        found: Row = {
            "equation": equation,
            "task": task,
            "method": method,
            "trained": own[0].get("trained"),
            "spread": {},
        }
        found["seeds"] = [row["seed"] for row in own]
        for key in dict.fromkeys(key for row in own for key in row if key != "seed"):
            values = [float(row[key]) for row in own if isinstance(row.get(key), (int, float))]
            if len(values) == len(own):
                found[key] = statistics.fmean(values)
                found["spread"] |= {key: statistics.stdev(values)} if len(values) > 1 else {}
        yield found


def break_even(rows: Sequence[Row], students: Collection[str]) -> Iterator[Row]:
    """Yield, for every student in one call, after how many samples its training has paid.

    Args:
        rows: Rows of `means` of one equation's task `sample`.
        students: Names of the students.

    Yields:
        The method, its further seconds of training beside those of `teacher`, and the number of samples from which on
        training and sampling take less time than sampling the teacher by its row of the most calls (`teacher`), and than
        solving the equation numerically for each sample (`solver`); None where they never do.
    """
    by_name = {row["method"]: row for row in rows}
    teachers = [row for row in rows if row["trained"] == "teacher" and "+" not in row["method"]]
    if not teachers:
        return
    teacher = max(teachers, key=lambda row: float(row["nfe"]))
    solved = [name for name in by_name if f"{name}+solve" in by_name]
    solver = None  # milliseconds of a numerical solution
    if solved:
        solver = by_name[f"{solved[0]}+solve"]["ms_per_sample"] - by_name[solved[0]]["ms_per_sample"]
    for row in rows:
        if row["nfe"] != 1 or "+" in row["method"] or row["trained"].removesuffix(LAMBDA0) not in students:
            continue
        further = row["train_seconds"] - teacher["train_seconds"]
        yield {
            "method": row["method"],
            "further_seconds": further,
            "teacher": _after(further, teacher["ms_per_sample"] - row["ms_per_sample"]),
            "solver": None if solver is None else _after(row["train_seconds"], solver - row["ms_per_sample"]),
        }


def _after(seconds: float, saved_ms: float) -> int | None:
    """Return the number of samples after which `saved_ms` a sample make up for these seconds."""
    return math.ceil(1e3 * seconds / saved_ms) if saved_ms > 0 else None


def write_tables(folder: Path, rows: Sequence[Row], failed: Sequence[Row], meta: Mapping[str, Any]) -> None:
    """Write compare.json and compare.csv, which have one row for each seed.

    Args:
        folder: Folder of the comparison.
        rows: Rows of the table.
        failed: Cells that failed, with the reason.
        meta: What they were measured with.
    """
    result = {"rows": list(rows), "failed": list(failed), "meta": dict(meta)}
    write_atomic(folder / "compare.json", (json_text(result, indent=1) + "\n").encode())
    plain = [{key: value for key, value in row.items() if not isinstance(value, (dict, list))} for row in rows]
    keys = list(dict.fromkeys(key for row in plain for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    write_atomic(folder / "compare.csv", text.getvalue().encode())


def page_text(
    rows: Sequence[Row],
    failed: Sequence[Row],
    meta: Mapping[str, Any],
    equations: Mapping[str, tuple[Pde, Grid]],
    shown: Mapping[str, Mapping[str, Samples]],
) -> str:
    """Return the page of a comparison, which loads nothing from elsewhere.

    Args:
        rows: Rows of single seeds.
        failed: Cells that failed, with the reason.
        meta: What they were measured with; `compare` has the settings of the comparison.
        equations: Each equation with its grid, by name.
        shown: Samples to be drawn, by equation and method.

    Returns:
        The page in HTML.
    """
    averaged = list(means(rows))
    parts = []
    for name, about in equations.items():
        own = [row for row in averaged if row["equation"] == name]
        parts += list(_equation(name, about, own, shown.get(name, {}), meta["compare"]["students"]))
    settings = [[name, tag("code", json_text(row))] for name, row in meta["compare"]["rows"].items()]
    missing = [
        tag("li", " ".join(str(one[key]) for key in ("equation", "seed", "row", "task")), ": ", one["failed"])
        for one in failed
    ]
    return page(
        "pidscale: comparison",
        tag("h1", "Methods side by side"),
        note(_EXPLAINED),
        *parts,
        tag("h2", "Settings of the rows"),
        table(["row", "settings"], settings, "Network, method and finish of each row"),
        *([tag("h2", "Cells that failed"), tag("ul", *missing)] if missing else []),
        note(f"{meta['versions']}, {meta['machine']}, seeds {meta['compare']['seeds']}"),
    )


def _equation(
    equation: str, about: tuple[Pde, Grid], rows: Sequence[Row], shown: Mapping[str, Samples], students: Collection[str]
) -> Iterator[Html]:
    """Yield the parts of the page about one equation."""
    pde, grid = about
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        side = " x ".join(map(str, grid.shape))
        yield tag("h2", f"{equation}, {side}: {task}")
        yield _table(own, "Measures")
        if task != "sample":
            continue
        titles = {key: title.text for key, title in TITLES.items()}
        yield html_image(pareto_figure(own, titles), f"Pairs of measures of every method on {equation}", wide=True)
        paid = list(break_even(own, students))
        if paid:
            yield _table(paid, "When a training has paid", _PAID)
        for first in range(0, len(shown), PICTURED):
            some = dict(list(shown.items())[first : first + PICTURED])
            figure = field_figure(pde, grid, _from_truth(some, shown), SHOWN)
            yield html_image(figure, f"Fields and residuals of {', '.join(some)}", wide=True)


def _from_truth(some: dict[str, Samples], shown: Mapping[str, Samples]) -> dict[str, Samples]:
    """Return sets with the truth first, whose colour scale all of them have."""
    return ({"truth": shown["truth"]} if "truth" in shown else {}) | some


def _table(rows: Sequence[Row], name: str, titles: Mapping[str, Title] | None = None) -> Html:
    """Return rows as an HTML table, of the columns that any of them has."""
    errors = dict.fromkeys(key for row in rows for key in row if key.startswith("error_"))
    known = titles or TITLES | {key: Title(key.replace("_", " ")) for key in errors}
    keys = [key for key in known if any(row.get(key) is not None for row in rows)]
    cells = [[row["method"], *(_value(row, key) for key in keys)] for row in rows]
    return table(["method", *(known[key] for key in keys)], cells, name, wide=True)


def _value(row: Row, key: str) -> Any:
    """Return a value of a row, with its deviation if it has one."""
    value = row.get(key)
    return Spread(value, row.get("spread", {}).get(key)) if isinstance(value, (int, float)) else value
