"""Every method on the same teacher, the same noise and the same truths: Darcy, Poisson and Burgers, several seeds.

python -m benchmarks.studies.methods [--pde darcy] [--seed 0] [--folder runs/methods]
    [--json benchmarks/results/methods.json]

Each equation and seed is a teacher and three distillations of as many steps (PIDDM and PID, each with its control of
lambda = 0, and distribution matching), by the scripts of launch/ on one worker with one core, 32 points a side. A finished
run is not repeated; the file keeps the rows that are not asked for, so that several of these commands may run side by side,
one for each core. Seconds are those of the method with its teacher and endpoints; samples take those of one core too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from benchmarks.report import Row, circumstances, finish, merged, options, processor, save
from benchmarks.studies.measure import launch, open_comparison
from pidscale.compare.contender import NONE, TEACHER, Contender, finished, headed
from pidscale.generator.generator import Generator
from pidscale.generator.load import load_student, load_teacher
from pidscale.methods.controls import Shuffled, SolveInput, Trivial, Truth
from pidscale.methods.few_calls import FewCalls
from pidscale.methods.one_call import OneCall
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.methods.refine import Refine
from pidscale.run.phases import versions

PDES = ("darcy", "poisson", "burgers")
OWN = {"burgers": ["pde.points=32", "pde.params.viscosity=0.02"]}
OBJECTIVES = ("piddm", "pid", "dm")
ENDPOINTS = ["distill.reuse=12", "distill.solver_steps=24"]  # three times as many as in the demo
STEPS = "distill.steps=1100"
BARE = ["distill.head=0", "distill.constraints=[]"]  # rows have their own steps
CORE = ["cluster.workers=1", "cluster.cpus_per_worker=1"]
TEACHER_STEPS = (4, 9, 18)
REFINE_STEPS = 20
HEAD_STEPS = (4, 16)
LAMBDA0, PIDDM = "student-lambda0", "piddm-1"
STUDENTS = {  # folders below those of the distillations
    LAMBDA0: "piddm/student-lambda0",
    PIDDM: "piddm/student",
    "pid": "pid/student-lambda0",
    "pid+physics": "pid/student",
    "dm+physics": "dm/student",
}


def shared(pde: str, seed: int, folder: Path) -> list[str]:
    """Return the arguments that all scripts of one equation and seed share."""
    data = [f"pde={pde}", f"data.path={folder / 'shards' / pde}", *OWN.get(pde, [])]
    return [*data, f"run.folder={folder}", f"run.seed={seed}", *CORE, *BARE]


def train_teacher(pde: str, seed: int, folder: Path) -> Path:
    """Make shards and teacher where they are missing, and return the folder of the teacher."""
    arguments = shared(pde, seed, folder)
    launch("make_shards", *arguments)
    launch("train_teacher", *arguments, f"run.name={pde}-{seed}")
    return folder / f"{pde}-{seed}" / "teacher"


def train(pde: str, seed: int, folder: Path, objectives: Iterable[str] = OBJECTIVES) -> None:
    """Run what is missing."""
    teacher = train_teacher(pde, seed, folder)
    for objective in objectives:
        settings = [f"distill={objective}", f"run.name={pde}-{seed}-{objective}", f"distill.teacher={teacher}", STEPS]
        settings += [] if objective == "pid" else ENDPOINTS
        settings += ["distill.control=false"] if objective == "dm" else []
        launch("distill", *shared(pde, seed, folder), *settings)


def contenders(generators: Mapping[str, Generator]) -> Iterator[Contender]:
    """Yield the rows of one equation and seed, in their order."""
    yield Contender("truth", NONE, Truth())
    yield Contender("trivial", NONE, Trivial())
    yield Contender("shuffled", NONE, Shuffled())
    for steps in TEACHER_STEPS:
        yield Contender(f"teacher-heun-{steps}", TEACHER, ProbabilityFlow(steps))
    yield from finished(TEACHER, generators[TEACHER], ProbabilityFlow(TEACHER_STEPS[-1]), HEAD_STEPS)
    for name in STUDENTS:
        yield Contender(name, name, OneCall())
        rows = finished if name == LAMBDA0 else headed
        yield from rows(name, generators[name], OneCall(), HEAD_STEPS)
        if name == PIDDM:
            yield Contender("sample-then-solve", PIDDM, OneCall(), SolveInput(), head=0)
            for calls in (2, 8):
                yield Contender(f"piddm-{calls}", PIDDM, FewCalls(calls))
            yield Contender("piddm-ref", PIDDM, Refine(REFINE_STEPS))


def measure(pde: str, seed: int, folder: Path) -> list[Row]:
    """Return one row for each method."""
    run = folder / f"{pde}-{seed}"
    teacher = run / "teacher"
    generators: dict[str, Generator] = {TEACHER: load_teacher(teacher)}
    for name, place in STUDENTS.items():
        generators[name] = load_student(folder / f"{pde}-{seed}-{place}", teacher=teacher)
    comparison = open_comparison(run, generators)
    rows = []
    for contender in contenders(generators):
        print(f"{pde} {seed} {contender.name}", flush=True)
        rows.append(comparison.measure(contender))
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
