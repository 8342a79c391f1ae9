"""A report as one self-contained HTML page: table, pictures of fields and residuals, spectra, error against network calls.

Knows no methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pidscale.compare.contender import TEACHER
from pidscale.compare.tables import MEASURES
from pidscale.dataset.problem import Problem
from pidscale.figures.embedded import html_image, html_panels
from pidscale.figures.fields import field_figure
from pidscale.figures.report import calls_figures, spectrum_figures
from pidscale.files import write_atomic
from pidscale.generator.artifact import CONTROL
from pidscale.methods.base import STUDENT
from pidscale.page.html import Html, Title, note, page, table, tag
from pidscale.pde.base import Samples

_EXPLAINED = """{n} samples of each method from the same noise, compared with {n} held-out truths. Residuals are relative to
the equation's own scale: the truth has {residual_floor:.1e} (the floor), a null solution {residual_trivial:.2f}. The solution
error compares the generated solution with a numerical one for the generated input; smoothing does not lower it.
SWD floor {swd_floor:.4f}; SWD excess is what a method adds to it. A click on a title sorts."""
_COLUMNS = [  # of MEASURES
    *(
        "nfe",
        "gradients",
        "residual_l2",
        "residual_dual",
        "boundary_rms",
        "solution_error",
        "phase_error",
        "mmse",
        "smse",
    ),
    *("swd", "swd_excess", "patch_swd", "spectrum_error", "nearest_training", "ms_per_sample", "train_seconds"),
]


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
    side = " x ".join(map(str, problem.grid.shape))
    fields = field_figure(pde, problem.grid, shown, 5)
    channels = ", ".join(result["meta"]["channels_shown"])
    text = page(
        f"pidscale: {pde.name}",
        tag("h1", f"{pde.name}, {side}: one-step student against its teacher"),
        note(
            _EXPLAINED.format(n=n, **{key: first[key] for key in ("residual_floor", "residual_trivial", "swd_floor")})
        ),
        _table(result["rows"], result["meta"]["channels_shown"]),
        tag("h2", "Fields and residuals"),
        html_image(fields, f"Fields ({channels}) and residuals of truth, teacher and student", wide=True),
        tag("h2", "Spectra"),
        html_panels(spectrum_figures(pde, problem.normaliser, shown), "Spectrum of {}: truth, teacher and student"),
        tag("h2", "Error against network calls"),
        html_panels(calls_figures(_lines(result["rows"])), "{} against network calls of teacher and students"),
        note(f"{result['meta']['versions']}, device {result['meta']['device']}, seeds {first['seeds']}"),
    )
    write_atomic(path, text.encode())


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


def _table(rows: list[dict[str, Any]], channels: list[str]) -> Html:
    """Return the rows as an HTML table."""
    titles: list[str | Title] = ["method", *(MEASURES[key] for key in _COLUMNS)]
    titles += [Title(f"variance {c}", "variance of the channel, relative to that of the truths") for c in channels]
    cells = [[r["method"], *(r[key] for key in _COLUMNS), *(r["variance_ratio"][c] for c in channels)] for r in rows]
    own = [number for number, row in enumerate(rows) if row["method"] == STUDENT]
    return table(titles, cells, "Measures of every method", own, wide=True)
