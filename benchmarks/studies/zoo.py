"""A small teacher, its control of lambda = 0 and its student for every equation, and what they are worth.

python -m benchmarks.studies.zoo [--pde heat wave ...] [--folder runs/zoo] [--json benchmarks/results/zoo.json]

Each equation is a run of launch/demo.py with the settings below, on 32 points a side and one worker with one core. A finished
run is not repeated; the file keeps the rows of the equations that are not asked for, so that two of these commands may run
side by side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.report import Row, circumstances, finish, merged, options, save
from benchmarks.studies.measure import launch
from pidscale.pde import PDES

COMMON = [
    "cluster.workers=1",
    "cluster.cpus_per_worker=1",
    "data.train=3072",
    "data.test=1536",
    "teacher.steps=500",
    "distill.steps=400",
    "distill.head=0",
    "distill.constraints=[]",
    "distill.buffer_rows=24",
    "distill.reuse=17",
    "distill.solver_steps=12",
    "evaluate.samples=768",
    "evaluate.teacher_steps=[18]",
    "evaluate.head_steps=[]",  # benchmarks.proofs.head measures what steps do
]
# Smooth periodic fields: a Fourier network that need not pad. Fewer frames than by default: more to learn from in minutes.
WAVES = ["model=fno_tiny", "model.change.padding=0.0", "model.change.width=16"]
LONGER = ["distill.steps=700", "distill.buffer_rows=32", "distill.reuse=22"]
OWN: dict[str, list[str]] = {  # what an equation needs beside that
    "advection_diffusion": [*WAVES, "pde.params.frames=5", "pde.params.speed=0.25", "pde.params.duration=0.5"],
    "burgers": ["pde.points=32", "pde.params.viscosity=0.02", "distill.physics_weight=2", *LONGER],
    "darcy": ["distill.physics_weight=1.33"],
    "heat": [*WAVES, "pde.params.frames=5"],
    "helmholtz": LONGER,
    "navier_stokes": [*WAVES, "pde.params.frames=6"],
    "poisson": LONGER,
    "reaction_diffusion": ["pde.params.frames=5", "pde.params.duration=2.0"],
    "stokes": ["pde.points=32"],
    "wave": [*WAVES, "pde.params.frames=5"],
}
KEYS = ("residual_l2", "residual_dual", "boundary_rms", "solution_error", "swd_excess", "nfe")
METHODS = {
    "teacher": "teacher-heun-18",
    "control": "student-lambda0",
    "student": "student",
}  # by the names of the columns


def settings(pde: str, seed: int, folder: Path) -> list[str]:
    """Return the words of the command for one equation and seed, without the name of the run."""
    places = [f"run.folder={folder}", f"run.seed={seed}", f"data.path={folder / 'shards' / pde}"]
    return [f"pde={pde}", *places, *COMMON, *OWN.get(pde, [])]


def train(pde: str, folder: Path, seed: int = 0) -> Path:
    """Run the demo of one equation where it is missing, and return the folder of the run."""
    name = f"{pde}-{seed}"
    launch("demo", f"run.name={name}", *settings(pde, seed, folder))
    return folder / name


def allowed_distance(row: Row) -> float:
    """Return the SWD excess that a student may have beside its teacher."""
    return max(1.25 * float(row["teacher_swd_excess"]), 0.025)


def measure(name: str, run: Path) -> Row:
    """Return what the report of an equation says of its generators, and whether physics has paid."""
    report = json.loads((run / "report" / "metrics.json").read_text())
    rows = {row["method"]: row for row in report["rows"]}
    points = json.loads((run / "config.json").read_text())["pde"]["points"]
    found: dict[str, Any] = {"pde": name, "points": points}
    for label, method in METHODS.items():
        found |= {f"{label}_{key}": rows[method][key] for key in KEYS}
        found[f"{label}_variance_least"] = min(rows[method]["variance_ratio"].values())
    for key in ("residual_floor", "residual_trivial", "train_seconds", "n_samples", "seeds"):
        found[key] = rows["student"][key]
    found["beats_control_in_solution"] = found["student_solution_error"] < found["control_solution_error"]
    found["beats_control_in_dual"] = found["student_residual_dual"] < found["control_residual_dual"]
    found["keeps_distance"] = found["student_swd_excess"] <= allowed_distance(found)
    return found | {"versions": report["meta"]["versions"]}


def main() -> None:
    """Run what is missing, measure and write the rows."""
    parser = options(__doc__, "zoo")
    parser.add_argument("--pde", nargs="+", choices=sorted(PDES), default=sorted(PDES))
    parser.add_argument("--folder", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    for name in arguments.pde:
        rows = merged(arguments.json, [measure(name, train(name, folder))], ("pde",))
        result = {"rows": sorted(rows, key=lambda row: str(row["pde"])), "meta": circumstances()}
        save(arguments.json, result)
    finish(arguments.json, result, "zoo")


if __name__ == "__main__":
    main()
