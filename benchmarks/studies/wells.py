"""PIDM's data set and its measure of the residual: the teacher, the student and its control, with solver steps behind them.

python -m benchmarks.studies.wells [--points 64] [--seed 0] [--folder runs/wells] [--json benchmarks/results/wells.json]

The equation is docs/examples/wells.py: 64 points a side, no flux through the edge, wells in two corners, u of mean 0.
`pidm` is the measure of Bastek et al., ICLR 2025: the mean of |R| over the channels of the equation and of the two pairs of
edges. The flux form holds the edges, so that it is a third of the mean of the equation's. A null field scores 0.104 in it. A
finished run is not repeated.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks.report import Row, circumstances, finish, merged, options, save
from benchmarks.studies.measure import launch
from pidscale.pde import build_pde

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
CHANNELS = 3  # that the published mean is over
NAME = "wells:Wells"
SETTINGS = ["pde=own", f"pde.name={NAME}", "distill.head=8", "evaluate.head_steps=[1,2,4,16]"]
SHORTER = ["evaluate.teacher_steps=[18]", "evaluate.samples=1024", "data.test=2048", "data.train=4096"]


def rows_of(points: int, seed: int, folder: Path) -> list[Row]:
    """Run what is missing, and return the rows of the report, with the published measure."""
    name = f"wells-{points}-{seed}"
    places = [f"run.folder={folder}", f"run.name={name}", f"data.path={folder / 'shards' / str(points)}"]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])])
    launch("demo", *SETTINGS, f"pde.points={points}", f"run.seed={seed}", *places, *SHORTER)
    sys.path.insert(0, str(EXAMPLES))
    report = json.loads((folder / name / "report" / "metrics.json").read_text())
    scale = build_pde(NAME).residual_scale / CHANNELS
    return [{"points": points, "seed": seed, "pidm": scale * row["residual_abs"]} | row for row in report["rows"]]


def main() -> None:
    """Run what is missing and write the rows."""
    parser = options(__doc__, "wells")
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/wells"))
    arguments = parser.parse_args()
    for seed in arguments.seed:
        own = rows_of(arguments.points, seed, arguments.folder.absolute())
        result = {"rows": merged(arguments.json, own, ("points", "seed")), "meta": circumstances()}
        save(arguments.json, result)
    finish(arguments.json, result)


if __name__ == "__main__":
    main()
