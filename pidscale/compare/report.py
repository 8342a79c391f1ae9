"""A report as one self-contained HTML page: table, pictures of fields and residuals, spectra, error against network calls.

Knows no methods.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from pidscale.compare.contender import TEACHER
from pidscale.dataset.problem import Problem
from pidscale.figures.fields import field_figure
from pidscale.figures.report import calls_figure, html_image, spectra_figure
from pidscale.files import write_atomic
from pidscale.generator.artifact import CONTROL
from pidscale.methods.base import STUDENT
from pidscale.pde.base import Samples

_COLUMNS = {
    "method": "method",
    "nfe": "calls",
    "gradients": "gradients",
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "boundary_rms": "boundary",
    "solution_error": "solution error",
    "phase_error": "phase error",
    "mmse": "MMSE",
    "smse": "SMSE",
    "swd": "SWD",
    "swd_excess": "SWD excess",
    "patch_swd": "patch SWD",
    "spectrum_error": "spectrum error",
    "nearest_training": "nearest training",
    "ms_per_sample": "ms / sample",
    "train_seconds": "training s",
}
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#1c2530}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}td,th{padding:4px 9px;text-align:right;
border-bottom:1px solid #dde3ea;white-space:nowrap}td:first-child,th:first-child{text-align:left}
tr.student{background:#e9f5ec;font-weight:600}img{max-width:100%;margin:.5rem 0}h1{font-size:1.5rem}h2{font-size:1.15rem;
margin-top:2rem}p.note{color:#51606f;max-width:60rem}"""


def write_report(
    path: Path, result: dict[str, Any], problem: Problem, made: dict[str, Samples], truth: Samples
) -> None:
    """Write the page. It loads nothing from elsewhere.

    Args:
        path: The file.
        result: Rows and meta data, as report/metrics.json holds them.
        problem: Equation, grid, units and data of the run.
        made: Samples in physical units by row.
        truth: Held-out truths.
    """
    first = result["rows"][0]
    best = [r["method"] for r in result["rows"] if r["trained"] == TEACHER and _plain(r)][-1]
    shown = {"truth": truth, "teacher": made[best], "student": made["student"]}
    n = first["n_samples"]
    pde = problem.pde
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pidscale: {html.escape(pde.name)}</title>
<style>{STYLE}</style></head><body>
<h1>{html.escape(pde.name)}, {problem.grid.shape[0]} x {problem.grid.shape[1]}: one-step student against its teacher</h1>
<p class="note">{n} samples of each method from the same noise, compared with {n} held-out truths. Residuals are relative to
the equation's own scale: the truth has {first["residual_floor"]:.1e} (the floor), a null solution
{first["residual_trivial"]:.2f}. The solution error compares the generated solution with a numerical one for the generated
input; smoothing does not lower it. SWD floor {first["swd_floor"]:.4f}; SWD excess is what a method adds to it.</p>
{_table(result["rows"], result["meta"]["channels_shown"])}
<h2>Fields and residuals</h2>{html_image(field_figure(pde, problem.grid, shown, 5))}
<h2>Spectra</h2>{html_image(spectra_figure(problem, shown))}
<h2>Error against network calls</h2>{html_image(calls_figure(_lines(result["rows"])))}
<p class="note">{html.escape(str(result["meta"]["versions"]))}, device {html.escape(result["meta"]["device"])},
seeds {first["seeds"]}</p></body></html>"""
    write_atomic(path, page.encode())


def _lines(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each network that differ in their number of calls alone."""
    lines = {}
    for name, label in ((TEACHER, "teacher (Heun)"), (STUDENT, STUDENT), (CONTROL, CONTROL)):
        own = [row for row in rows if row["trained"] == name and _plain(row) and not row["gradients"]]
        if own:
            lines[label] = own
    return lines


def _plain(row: dict[str, Any]) -> bool:
    """Return whether a row is that of a generator as it was made."""
    return not {"finish", "head"} & row["asked"].keys()


def _table(rows: list[dict[str, Any]], channels: list[str]) -> str:
    """Return the rows as an HTML table."""
    head = "".join(f"<th>{title}</th>" for title in [*_COLUMNS.values(), *(f"variance {c}" for c in channels)])
    body = []
    for r in rows:
        values = [r[k] for k in _COLUMNS] + [r["variance_ratio"][c] for c in channels]
        cells = "".join(f"<td>{_cell(v)}</td>" for v in values)
        body.append(f'<tr class="{"student" if r["method"] == "student" else ""}">{cells}</tr>')
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else html.escape(str(value))
