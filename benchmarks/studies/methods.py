"""Every method on the same teacher, the same noise and the same truths: Darcy, Poisson and Burgers, several seeds.

python -m benchmarks.studies.methods [--pde darcy] [--seed 0] [--folder runs/methods]
    [--json benchmarks/results/methods.json]

Each equation and seed is a teacher and three distillations of as many steps (PIDDM and PID, each with its control of
lambda = 0, and distribution matching), by the scripts of launch/ on one worker with one core, 32 points a side. A finished
run is not repeated; the file keeps the rows that are not asked for, so that several of these commands may run side by side,
one for each core. Seconds are those of the method with its teacher and endpoints; samples take those of one core too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from benchmarks.report import Row, circumstances, finish, merged, options, processor, save
from benchmarks.studies.measure import generated, launch, open_comparison
from pidscale.run.phases import versions

PDES = ("darcy", "poisson", "burgers")
OWN = {"burgers": ["pde.points=32", "pde.params.viscosity=0.02"]}
OBJECTIVES = ("piddm", "pid", "dm")
ENDPOINTS = ["distill.reuse=12", "distill.solver_steps=24"]  # three times as many as in the demo
STEPS = "distill.steps=1100"
CORE = ["cluster.workers=1", "cluster.cpus_per_worker=1"]
TEACHER_STEPS = (4, 9, 18)
REFINE_STEPS = 20
STUDENTS = {  # folders below those of the distillations
    "student-lambda0": "piddm/student-lambda0",
    "piddm-1": "piddm/student",
    "pid": "pid/student-lambda0",
    "pid+physics": "pid/student",
    "dm+physics": "dm/student",
}


def commands(pde: str, seed: int, folder: Path, objectives: Iterable[str] = OBJECTIVES) -> Iterator[list[str]]:
    """Yield the scripts of one equation and seed with their arguments, in order."""
    data = [f"pde={pde}", f"data.path={folder / 'shards' / pde}"]
    own = OWN.get(pde, [])
    place = [f"run.folder={folder}", f"run.seed={seed}", *CORE]
    teacher = folder / f"{pde}-{seed}" / "teacher"
    yield ["make_shards", *data, *own]
    yield ["train_teacher", *data, *own, *place, f"run.name={pde}-{seed}"]
    for objective in objectives:
        settings = [f"distill={objective}", f"run.name={pde}-{seed}-{objective}", f"distill.teacher={teacher}", STEPS]
        settings += [] if objective == "pid" else ENDPOINTS
        settings += ["distill.twin=false"] if objective == "dm" else []
        yield ["distill", *data, *settings, *own, *place]


def train(pde: str, seed: int, folder: Path, objectives: Iterable[str] = OBJECTIVES) -> None:
    """Run what is missing."""
    for script, *arguments in commands(pde, seed, folder, objectives):
        launch(script, *arguments)


def measure(pde: str, seed: int, folder: Path) -> list[Row]:
    """Return one row for each method."""
    run = folder / f"{pde}-{seed}"
    comparison = open_comparison(run)
    rows = comparison.controls()
    students = {name: folder / f"{pde}-{seed}-{place}" for name, place in STUDENTS.items()}
    for made in generated(comparison, run / "teacher", TEACHER_STEPS, students, REFINE_STEPS):
        print(f"{pde} {seed} {made.name}", flush=True)
        rows += comparison.rows_with_solver(made) if made.name == "piddm-1" else [comparison.row(made)]
    where = {"pde": pde, "seed": seed, "commit": versions()["commit"], "machine": processor()}
    return [where | row for row in rows]


def main() -> None:
    """Run what is missing, measure and write the rows."""
    parser = options(__doc__, "methods")
    parser.add_argument("--pde", nargs="+", choices=PDES, default=list(PDES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/methods"))
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    torch.set_num_threads(1)
    for seed in arguments.seed:
        for pde in arguments.pde:
            train(pde, seed, folder)
            rows = merged(arguments.json, measure(pde, seed, folder), ("pde", "seed"))
            result = {"rows": rows, "meta": circumstances()}
            save(arguments.json, result)
    finish(arguments.json, result, "methods")


if __name__ == "__main__":
    main()
