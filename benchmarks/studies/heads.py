"""Where solver steps belong: behind the student in training or only afterwards, and how much residual the loss needs then.

python -m benchmarks.studies.heads [--pde darcy] [--seed 0] [--folder runs/zoo] [--json benchmarks/results/heads.json]

For each equation and seed, one teacher and six students of as many steps: the weights of the residual times 0, 0.1 and 1,
without a head in training and with one of 4 steps. Those without a head and with weights of 0 and 1 are the control and the
student of benchmarks.studies.zoo, whose settings all share. Each student is measured with 0, 1, 2, 4 and 8 steps behind it. A
finished run is not repeated; the file keeps the rows that are not asked for.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import torch

from benchmarks.report import Row, circumstances, finish, merged, options, save
from benchmarks.studies.measure import launch, open_comparison
from benchmarks.studies.zoo import settings, train
from pidscale.compare.contender import Contender
from pidscale.generator.load import load_student
from pidscale.methods.one_call import OneCall

PDES = ("darcy", "poisson", "burgers")
WEIGHTS = (0.0, 0.1, 1.0)
TRAINED = (0, 4)
AFTER = (0, 1, 2, 4, 8)
PLAIN = {0.0: "student-lambda0", 1.0: "student"}  # students of benchmarks.studies.zoo, by weight
USUAL = "distill.physics_weight="


def trained(pde: str, seed: int, folder: Path, weight: float, head: int) -> Path:
    """Run what is missing of one student, and return the folder of the student."""
    zoo = train(pde, folder, seed)
    if head == 0 and weight in PLAIN:
        return zoo / PLAIN[weight]
    shared = settings(pde, seed, folder)
    usual = [float(word.removeprefix(USUAL)) for word in shared if word.startswith(USUAL)]
    name = f"{pde}-{seed}-head{head}-weight{weight:g}"
    own = {word.split("=")[0]: word for word in shared} | {
        "weight": f"{USUAL}{weight * (usual or [1.0])[0]:g}",
        "distill.head": f"distill.head={head}",
        "through": "distill.head_in_training=true",
        "control": "distill.control=false",
    }
    own.pop(USUAL.rstrip("="), None)
    launch("distill", *own.values(), f"distill.teacher={zoo / 'teacher'}", f"run.name={name}")
    return folder / name / "student"


def measure(pde: str, seed: int, folder: Path, weight: float, head: int) -> list[Row]:
    """Return one row of a student for each number of steps behind it."""
    student = trained(pde, seed, folder, weight, head)
    name = f"head{head}-weight{weight:g}"
    comparison = open_comparison(student.parent, {name: load_student(student)})
    where = {"pde": pde, "seed": seed, "weight": weight, "trained_head": head}
    rows = []
    for steps in AFTER:
        print(f"{pde} {seed} {name} with {steps} steps", flush=True)
        row = comparison.measure(Contender(f"{name}+{steps}", name, OneCall(), head=steps))
        rows.append(where | {"steps": steps} | row)
    return rows


def main() -> None:
    """Run what is missing, measure and write the rows."""
    parser = options(__doc__, "heads")
    parser.add_argument("--pde", nargs="+", choices=PDES, default=list(PDES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    torch.set_num_threads(1)
    for seed, pde, weight, head in product(arguments.seed, arguments.pde, WEIGHTS, TRAINED):
        own = measure(pde, seed, folder, weight, head)
        rows = merged(arguments.json, own, ("pde", "seed", "weight", "trained_head"))
        result = {"rows": rows, "meta": circumstances()}
        save(arguments.json, result)
    finish(arguments.json, result)


if __name__ == "__main__":
    main()
