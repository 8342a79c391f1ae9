"""The table of a comparison as JSON, as CSV, and as one HTML page that loads nothing from elsewhere. Knows no methods."""

from __future__ import annotations

import csv
import html
import io
import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pidscale.compare.report import STYLE
from pidscale.compare.settings import LAMBDA0
from pidscale.figures.compare import pareto_figure
from pidscale.figures.fields import field_figure
from pidscale.figures.report import html_image
from pidscale.files import write_atomic
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde, Samples
from pidscale.plain import json_text

Row = dict[str, Any]
SHOWN = 2  # samples of a row in a picture
PICTURED = 8  # rows in one picture
TITLES = {
    "nfe": "calls",
    "gradients": "gradients",
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "residual_abs": "mean |residual|",
    "boundary_rms": "boundary",
    "solution_error": "solution error",
    "phase_error": "phase error",
    "misclassified": "wrong phase",
    "swd_excess": "SWD excess",
    "patch_swd": "patch SWD",
    "feature_excess": "feature excess",
    "spectrum_error": "spectrum error",
    "mmse": "MMSE",
    "smse": "SMSE",
    "nearest_training": "nearest training",
    "ms_per_sample": "ms / sample",
    "train_seconds": "training s",
    "n_samples": "n",
}
_SORTED = """
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const table = head.closest("table"), at = [...head.parentNode.children].indexOf(head);
  const up = head.dataset.up !== "1";
  for (const other of head.parentNode.children) delete other.dataset.up;
  head.dataset.up = up ? "1" : "0";
  const key = row => row.children[at].dataset.value;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return up ? order : -order;
  });
  table.tBodies[0].append(...rows);
});
"""
_MORE = """
th{cursor:pointer;position:sticky;top:0;background:#fff}th[data-up="1"]::after{content:" \\2191"}
th[data-up="0"]::after{content:" \\2193"}td small{color:#7a8794}code{font-size:12px}
@media(prefers-color-scheme:dark){body{background:#12171d;color:#dbe2ea}th{background:#12171d}td,th{border-color:#2b3642}
p.note,td small{color:#93a1b0}img{background:#fff;border-radius:4px}}
"""


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
    settings = "".join(
        f"<tr><td>{html.escape(name)}</td><td style='text-align:left'><code>{html.escape(json_text(row))}</code></td></tr>"
        for name, row in meta["compare"]["rows"].items()
    )
    missing = "".join(
        f"<li>{html.escape(' '.join(map(str, (one['equation'], one['seed'], one['row'], one['task']))))}: "
        f"{html.escape(one['failed'])}</li>"
        for one in failed
    )
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>pidscale: comparison</title>
<style>{STYLE}{_MORE}</style></head><body><h1>Methods side by side</h1>
<p class="note">Every method has the same teacher, the same noise and the same held-out truths. Residuals are relative to
the equation's own scale. <code>truth</code> is the floor of residuals and of the solution error, <code>trivial</code> has a
null solution; an excess is what a distance has beyond that of two sets of truths. Numbers are means over seeds, small ones
the standard deviation. A click on a title sorts. <code>NAME+head-4</code> is NAME with four solver steps of the equation
behind it, <code>NAME+solve</code> with the numerical solution of its inputs.</p>
{"".join(parts)}
<h2>Settings of the rows</h2><table><tbody>{settings}</tbody></table>
{f"<h2>Cells that failed</h2><ul>{missing}</ul>" if missing else ""}
<p class="note">{html.escape(str(meta["versions"]))}, {html.escape(meta["machine"])}, seeds {meta["compare"]["seeds"]}</p>
<script>{_SORTED}</script></body></html>"""


def _equation(
    equation: str, about: tuple[Pde, Grid], rows: Sequence[Row], shown: Mapping[str, Samples], students: Collection[str]
) -> Iterator[str]:
    """Yield the parts of the page about one equation."""
    pde, grid = about
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        side = " x ".join(map(str, grid.shape))
        yield f"<h2>{html.escape(equation)}, {side}: {html.escape(task)}</h2>{_table(own)}"
        if task != "sample":
            continue
        yield html_image(pareto_figure(own, TITLES))
        paid = list(break_even(own, students))
        if paid:
            titles = {"further_seconds": "seconds beside the teacher's", "teacher": "samples to pay beside the teacher"}
            yield _table(paid, titles | {"solver": "samples to pay beside a solver"})
        for first in range(0, len(shown), PICTURED):
            some = dict(list(shown.items())[first : first + PICTURED])
            yield html_image(field_figure(pde, grid, _from_truth(some, shown), SHOWN))


def _from_truth(some: dict[str, Samples], shown: Mapping[str, Samples]) -> dict[str, Samples]:
    """Return sets with the truth first, whose colour scale all of them have."""
    return ({"truth": shown["truth"]} if "truth" in shown else {}) | some


def _table(rows: Sequence[Row], titles: Mapping[str, str] | None = None) -> str:
    """Return rows as an HTML table whose columns can be sorted."""
    known = titles or TITLES | {key: key.replace("_", " ") for row in rows for key in row if key.startswith("error_")}
    keys = [key for key in known if any(row.get(key) is not None for row in rows)]
    head = "".join(f"<th>{html.escape(title)}</th>" for title in ["method", *(known[key] for key in keys)])
    body = "".join(
        f"<tr>{_cell(row['method'])}{''.join(_cell(row.get(k), _spread(row, k)) for k in keys)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _spread(row: Row, key: str) -> float | None:
    found: float | None = row.get("spread", {}).get(key)
    return found


def _cell(value: Any, spread: float | None = None) -> str:
    if value is None:
        return '<td data-value="">-</td>'
    if isinstance(value, str):
        return f'<td data-value="{html.escape(value)}">{html.escape(value)}</td>'
    small = f" <small>&plusmn; {spread:.1g}</small>" if spread else ""
    return f'<td data-value="{value!r}">{value:.3g}{small}</td>'
