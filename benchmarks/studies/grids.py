"""What the demo's defaults reach on finer grids, and what solver steps add there.

python -m benchmarks.studies.grids [--points 32 64 128] [--seed 0] [--folder runs/grids] [--json FILE]

Each grid is a run of launch/demo.py on Darcy with nothing of its training set but the number of points; that of 128 points
is shorter, and reports of fine grids have fewer samples. The rows are those of its report: the teacher, the student, its
control without the residual, and each of them with 1, 2, 4 and 8 solver steps. A finished run is not repeated; the file keeps
the rows of the grids that are not asked for.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.report import Row, circumstances, finish, merged, options, save
from benchmarks.studies.measure import launch

POINTS = (32, 64, 128)
REPORT = ["evaluate.head_steps=[1,2,4,8]", "evaluate.teacher_steps=[18]"]
SHORT = {
    64: ["data.test=1536", "evaluate.samples=768"],
    128: [
        "data.train=1024",
        "data.test=512",
        "teacher.steps=200",
        "distill.steps=200",
        "distill.buffer_rows=12",
        "distill.reuse=17",
        "evaluate.samples=256",
    ],
}


def rows_of(points: int, seed: int, folder: Path) -> list[Row]:
    """Run what is missing of one grid, and return the rows of its report."""
    name = f"darcy-{points}-{seed}"
    places = [f"run.folder={folder}", f"run.name={name}", f"data.path={folder / 'shards' / str(points)}"]
    launch("demo", f"pde.points={points}", f"run.seed={seed}", *places, *REPORT, *SHORT.get(points, []))
    report = json.loads((folder / name / "report" / "metrics.json").read_text())
    return [{"points": points, "seed": seed} | row for row in report["rows"]]


def main() -> None:
    """Run what is missing and write the rows."""
    parser = options(__doc__, "grids")
    parser.add_argument("--points", nargs="+", type=int, choices=POINTS, default=list(POINTS))
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/grids"))
    arguments = parser.parse_args()
    for points in arguments.points:
        for seed in arguments.seed:
            rows = merged(arguments.json, rows_of(points, seed, arguments.folder.absolute()), ("points", "seed"))
            result = {"rows": rows, "meta": circumstances()}
            save(arguments.json, result)
    finish(arguments.json, result)


if __name__ == "__main__":
    main()
