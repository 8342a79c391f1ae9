"""Every method on the same teacher, the same noise and the same truths: Darcy, Poisson and Burgers, several seeds, one page.

python -m benchmarks.methods [--pde darcy] [--seed 0] [--folder runs/methods] [--json benchmarks/results/methods.json]
    [--page docs/methods.md]

Each equation and seed is a teacher and three distillations of as many steps (PIDDM and PID, each with its lambda = 0 twin,
and distribution matching), by the scripts of launch/ on one worker with one core, 32 points a side. A run that is there
already is not repeated; the file keeps the rows that are not asked for, so that several of these commands may run side by
side, one for each core. Seconds are those of the method with its teacher and endpoints, samples take those of one core too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.manufactured import Made
from benchmarks.methods_page import page
from benchmarks.report import finish, options, processor, save
from pidscale.compare import contender
from pidscale.compare.run import reference, row
from pidscale.config import Settings, from_plain
from pidscale.dataset.problem import Problem, open_problem
from pidscale.generator.load import load_student
from pidscale.run.phases import versions

PDES = ("darcy", "poisson", "burgers")
OWN = {"burgers": ["pde.points=32", "pde.params.viscosity=0.02"]}
OBJECTIVES = ("piddm", "pid", "dm")
ENDPOINTS = ["distill.reuse=12", "distill.solver_steps=24"]  # three times as many as in the demo
STEPS = "distill.steps=1100"
CORE = ["cluster.workers=1", "cluster.cpus_per_worker=1"]
TEACHER_STEPS = (4, 9, 18)
REFINE_STEPS = 20


def commands(pde: str, seed: int, folder: Path, objectives: Iterable[str] = OBJECTIVES) -> Iterator[list[str]]:
    """The scripts of one equation and seed, in order."""
    data = [f"pde={pde}", f"data.path={folder / 'shards' / pde}", *OWN.get(pde, [])]
    place = [f"run.folder={folder}", f"run.seed={seed}", *CORE]
    yield ["make_shards", *data]
    yield ["train_teacher", *data, *place, f"run.name={pde}-{seed}"]
    for objective in objectives:
        teacher = f"distill.teacher={folder / f'{pde}-{seed}' / 'teacher'}"
        own = [f"distill={objective}", f"run.name={pde}-{seed}-{objective}", teacher]
        own += [STEPS, *(ENDPOINTS if objective != "pid" else [])]
        own += ["distill.twin=false"] if objective == "dm" else []
        yield ["distill", *data[:2], *own, *OWN.get(pde, []), *place]


def train(pde: str, seed: int, folder: Path, objectives: Iterable[str] = OBJECTIVES) -> None:
    """Run what is missing."""
    for script, *arguments in commands(pde, seed, folder, objectives):
        subprocess.run([sys.executable, f"launch/{script}.py", *arguments], check=True)


def made(settings: Settings, problem: Problem, folder: Path, pde: str, seed: int) -> Iterator[Made]:
    """The methods that generate, from the same noise."""
    e, grid = settings.evaluate, problem.grid
    teacher_folder = folder / f"{pde}-{seed}" / "teacher"
    teacher = load_student(teacher_folder)
    eps, params = (draw(range(e.samples), e.seed, "evaluate") for draw in (teacher.eps, teacher.params))
    for steps in TEACHER_STEPS:
        best = contender.generate(f"teacher-heun-{steps}", teacher, eps, params, e.batch, steps)
        yield best
    yield contender.smoothed(best, "teacher+smooth3", problem.pde, grid)
    students = {
        "student-lambda0": "piddm/student-lambda0",
        "piddm-1": "piddm/student",
        "pid": "pid/student-lambda0",
        "pid+physics": "pid/student",
        "dm+physics": "dm/student",
    }
    for name, place in students.items():
        student = load_student(folder / f"{pde}-{seed}-{place}", teacher=teacher_folder)
        one = contender.generate(name, student, eps, params, e.batch)
        yield one
        if name == "student-lambda0":
            yield contender.smoothed(one, f"{name}+smooth3", problem.pde, grid)
        if name == "piddm-1":
            for nfe in (2, 8):
                yield contender.generate_more(f"piddm-{nfe}", student, eps, params, e.batch, nfe)
            yield contender.refined("piddm-ref", student, e.samples, e.seed, e.batch, REFINE_STEPS)


def measure(pde: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """One row for each method."""
    config = json.loads((folder / f"{pde}-{seed}" / "config.json").read_text())
    settings = from_plain(Settings, config)
    settings = replace(settings, run=replace(settings.run, seed=seed))
    problem = open_problem(settings.pde, settings.data)
    against, rows = reference(settings, problem), []
    for one in contender.references(problem.pde, problem.grid, against.truth):
        rows.append(row(one, against, against.truth.fields))
    for one in made(settings, problem, folder, pde, seed):
        print(f"{pde} {seed} {one.name}", flush=True)
        began = time.perf_counter()
        solved, _ = contender.solutions(problem.pde, problem.grid, one.samples)
        cost = (time.perf_counter() - began) / len(one.samples.fields) * 1e3
        rows.append(row(one, against, solved))
        if one.name == "piddm-1":
            rows.append(row(contender.solved(one, solved, cost), against, solved))
    said = {"pde": pde, "seed": seed, "commit": versions()["commit"], "machine": processor()}
    return [said | one for one in rows]


def main() -> None:
    """Run what is missing, measure, write JSON and the page."""
    parser = options(__doc__, "methods", "docs/methods.md")
    parser.add_argument("--pde", nargs="*", choices=PDES, default=list(PDES))
    parser.add_argument("--seed", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/methods"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seed:
        for pde in arguments.pde:
            train(pde, seed, arguments.folder.absolute())
            rows = measure(pde, seed, arguments.folder.absolute())
            known = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
            known = [one for one in known if (one["pde"], one["seed"]) != (pde, seed)] + rows
            save(arguments.json, {"rows": known, "meta": {"versions": versions()}})
    finish(arguments, json.loads(arguments.json.read_text()), page)


if __name__ == "__main__":
    main()
