"""A report as one self-contained HTML page: table, pictures of fields and residuals, spectra, error against NFE."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pidscale import metrics
from pidscale.dataset.problem import Problem
from pidscale.figures.fields import field_figure
from pidscale.generator.artifact import CONTROL
from pidscale.pde.base import Samples, shown_channels
from pidscale.records.layout import write_atomic

_COLUMNS = {
    "method": "method",
    "nfe": "NFE",
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
    """Write the page. made: samples in physical units by method. Nothing in it is fetched from anywhere."""
    first = result["rows"][0]
    best = [n for n in made if n.startswith("teacher-heun-")][-1]
    shown = {"truth": truth, "teacher": made[best], "student": made["student"]}
    n, pde = first["n_samples"], problem.pde
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pidscale: {html.escape(pde.name)}</title>
<style>{STYLE}</style></head><body>
<h1>{html.escape(pde.name)}, {problem.grid.shape[0]} x {problem.grid.shape[1]}: one-step student against its teacher</h1>
<p class="note">{n} samples of each method from the same noise, against {n} truths that no training saw. Residuals are
relative to the equation's own scale: truth {first["residual_floor"]:.1e} (its floor), a null solution
{first["residual_trivial"]:.2f}. Solution error compares the solution channel with a numerical solution of the generated
input; smoothing cannot buy it. SWD floor {first["swd_floor"]:.4f}; SWD excess is what a method adds to it.</p>
{_table(result["rows"], result["meta"]["channels_shown"])}
<h2>Fields and residuals</h2>{image(field_figure(pde, problem.grid, shown, 5))}
<h2>Spectra</h2>{image(_spectra(problem, shown))}
<h2>Error against network calls</h2>{image(_against_nfe(result["rows"]))}
<p class="note">{html.escape(str(result["meta"]["versions"]))}, device {html.escape(result["meta"]["device"])},
seeds {first["seeds"]}</p></body></html>"""
    write_atomic(path, page.encode())


def _table(rows: list[dict[str, Any]], channels: list[str]) -> str:
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


def image(figure: Figure) -> str:
    """A figure as an HTML image that holds its own data."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _spectra(problem: Problem, shown: dict[str, Samples]) -> Figure:
    chosen = shown_channels(problem.pde)
    names = [problem.pde.channels[i].name for i in chosen]
    figure = Figure(figsize=(4.6 * len(names), 3.4), layout="constrained")
    for name, channel, axis in zip(names, chosen, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        for label, samples in shown.items():
            power = metrics.spectrum(problem.normaliser.encode(samples.fields))[channel]
            axis.loglog(torch.arange(1, len(power)), power[1:], label=label)
        axis.set_title(name)
        axis.set_xlabel("wave number")
        axis.set_ylabel("power")
        axis.legend()
    return figure


def _against_nfe(rows: list[dict[str, Any]]) -> Figure:
    keys = {"solution_error": "solution error", "residual_l2": "residual l2", "residual_dual": "residual dual"}
    figure = Figure(figsize=(13.5, 3.6), layout="constrained")
    for axis, (key, title) in zip(figure.subplots(1, 3), keys.items(), strict=True):
        teacher = [(r["nfe"], r[key]) for r in rows if r["method"].startswith("teacher-heun-")]
        axis.loglog(*zip(*teacher, strict=True), "o-", label="teacher (Heun)")
        for name, mark in (("student", "s"), (CONTROL, "^")):
            own = [r for r in rows if r["method"] == name or r["method"].removeprefix(f"{name}-").isdigit()]
            if own:
                axis.loglog([r["nfe"] for r in own], [r[key] for r in own], f"{mark}-", label=name)
        axis.set_xlabel("network calls")
        axis.set_title(title)
        axis.legend(fontsize=8)
    return figure
