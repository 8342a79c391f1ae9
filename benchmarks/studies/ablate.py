"""One setting of the distillation at a time: calls, uses, weights, norm, start and source, on one teacher; one HTML page.

python -m benchmarks.studies.ablate [--pde poisson] [--only K norm ...] [--folder runs/ablate]
    [--json benchmarks/results/ablate.json] [--html runs/ablate/index.html]

The teacher is trained once; each variant is a run of launch/distill.py with what is common and one value of its own. The
values that are common, one of each axis, are one run. A finished run is not repeated; the file keeps the rows that are not
asked for. lambda is the factor of all weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.report import Row, circumstances, finish, merged, options, save
from benchmarks.studies.measure import launch, student_row
from benchmarks.studies.methods import CORE
from pidscale.figures.embedded import html_image
from pidscale.page.html import note, table, tag
from pidscale.page.html import page as html_page

COMMON = [
    "distill.head=0",
    "distill.constraints=[]",
    "data.train=3072",
    "data.test=2048",
    "teacher.steps=500",
    "distill.steps=400",
    "distill.buffer_rows=16",
    "distill.solver_steps=12",
    "distill.reuse=16",
    "distill.control=false",
    "evaluate.samples=1024",
    *CORE,
]
USUAL = {  # in COMMON or by default
    "K": "12",
    "R": "16",
    "lambda": "1",
    "norm": "both",
    "start": "teacher",
    "source": "inline",
}
AXES: dict[str, dict[str, list[str]]] = {
    "K": {str(k): [f"distill.solver_steps={k}"] for k in (3, 6, 12, 24)},
    "R": {str(r): [f"distill.reuse={r}"] for r in (1, 4, 16, 64)},
    "lambda": {str(f): [f"distill.physics_weight={f}"] for f in (0, 0.1, 1, 10)},
    "norm": {norm: [f"distill.norm={norm}"] for norm in ("l2", "dual", "both")},
    "start": {start: [f"distill.start={start}"] for start in ("teacher", "scratch")},
    "source": {source: [f"distill.source={source}"] for source in ("inline", "thread", "shards")},
}
KEYS = {
    "solution_error": "solution error",
    "residual_dual": "dual",
    "residual_l2": "l2",
    "swd_excess": "SWD excess",
    "train_seconds": "train s",
}


def common(pde: str, folder: Path) -> list[str]:
    """Return the arguments that all scripts share."""
    return [f"pde={pde}", f"data.path={folder / 'shards' / pde}", f"run.folder={folder}", *COMMON]


def train_teacher(pde: str, folder: Path) -> None:
    """Make what all variants need, where it is missing."""
    launch("make_shards", *common(pde, folder))
    launch("train_teacher", *common(pde, folder), f"run.name={pde}")


def train(pde: str, folder: Path, axis: str, value: str) -> Path:
    """Run one variant where it is missing, and return its folder."""
    name = f"{pde}-usual" if USUAL[axis] == value else f"{pde}-{axis}-{value}"
    places = [f"distill.teacher={folder / pde / 'teacher'}", f"distill.endpoints={folder / 'endpoints'}"]
    arguments = [*common(pde, folder), *places, *AXES[axis][value], f"run.name={name}"]
    if value == "shards":
        launch("make_endpoints", *arguments)
    launch("distill", *arguments)
    return folder / name


def measure(run: Path) -> Row:
    """Return the row of a run's student, as the report measures it."""
    return student_row(run)


def _plots(rows: list[dict[str, Any]]) -> Figure:
    """Each measure against the values of an axis, one line of panels for each axis."""
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    figure = Figure(figsize=(2.8 * len(KEYS), 2.4 * len(axes)), layout="constrained")
    for line, axis in zip(figure.subplots(len(axes), len(KEYS), squeeze=False), axes, strict=True):
        own = [row for row in rows if row["axis"] == axis]
        for panel, (key, title) in zip(line, KEYS.items(), strict=True):
            panel.plot([row["value"] for row in own], [row[key] for row in own], "o-")
            panel.set_ylim(bottom=0)
            panel.set_title(f"{title} by {axis}", fontsize=9)
    return figure


def page(result: dict[str, Any]) -> str:
    """Return the HTML page, which fetches nothing from elsewhere."""
    titles = ["axis", "value", *KEYS.values()]
    rows = [[row["axis"], row["value"], *(row[key] for key in KEYS)] for row in result["rows"]]
    meta = result["meta"]
    return html_page(
        "pidscale: ablation",
        tag("h1", f"{meta['pde']}: one setting at a time"),
        note(f"Common: {' '.join(COMMON)}. One seed."),
        table(titles, rows, "Students by the setting in which they differ"),
        html_image(_plots(result["rows"]), "Each measure against the values of each setting", wide=True),
        note(f"{meta['machine']}, {meta['versions']}"),
    )


def main() -> None:
    """Run what is missing, measure, and write the rows and the HTML page."""
    parser = options(__doc__, "ablate")
    parser.add_argument("--pde", default="poisson")
    parser.add_argument("--only", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--folder", type=Path, default=Path("runs/ablate"))
    parser.add_argument("--html", type=Path, default=Path("runs/ablate/index.html"))
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    train_teacher(arguments.pde, folder)
    for axis in arguments.only:
        for value in AXES[axis]:
            row = {"axis": axis, "value": value} | measure(train(arguments.pde, folder, axis, value))
            rows = merged(arguments.json, [row], ("axis", "value"))
            result = {"rows": rows, "meta": circumstances(pde=arguments.pde)}
            save(arguments.json, result)
    arguments.html.parent.mkdir(parents=True, exist_ok=True)
    arguments.html.write_text(page(result))
    finish(arguments.json, result)


if __name__ == "__main__":
    main()
