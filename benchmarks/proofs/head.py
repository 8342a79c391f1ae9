"""What solver steps behind a student's call do: residual and solution error after each number of steps, and their time.

    python -m benchmarks.proofs.head [--folder runs/zoo] [--pde darcy heat ...] [--samples 64]

The students are those of `python -m benchmarks.studies.zoo`. `solution_error` is relative to the generator's own numerical
solution for the same inputs; `scheme_error` to the solution that steps lead to (that of the residual's own discretisation:
further steps change nothing). `worse` counts samples whose error to the numerical solution is larger than without steps, and
larger than the distance of the two numerical solutions. Times are medians of interleaved repeats, one thread, in ms a sample;
`share` is relative to the network's call. `rate` is the factor of the scheme error a step since the row before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report import Row, circumstances, finish, merged, options, save
from pidscale.generator.load import load_student
from pidscale.generator.student import Student
from pidscale.methods.controls import solutions
from pidscale.pde import PDES
from pidscale.pde.base import Samples, solution_mask
from pidscale.pde.head import LARGEST, correct
from pidscale.pde.residuals import residual_rms

STEPS = (0, 1, 2, 4, 8)
REPEATS = 7
SEED = 5


def times(jobs: dict[int, Callable[[], object]]) -> dict[int, float]:
    """Return the seconds of each job: medians of interleaved repeats, after one that makes tables."""
    spent: dict[int, list[float]] = {key: [] for key in jobs}
    for repeat in range(REPEATS + 1):
        for key, job in jobs.items():
            began = time.perf_counter()
            job()
            if repeat:
                spent[key].append(time.perf_counter() - began)
    return {key: statistics.median(each) for key, each in spent.items()}


def errors(student: Student, found: Tensor, wanted: Tensor) -> Tensor:
    """Return the error of each sample's solution relative to another one, [N]."""
    mask = solution_mask(student.pde, student.grid)
    away = ((found.double() - wanted.double()) * mask).flatten(1).norm(dim=1)
    return away / (wanted.double() * mask).flatten(1).norm(dim=1)


def measure(name: str, student: Student, network: str, samples: int) -> list[Row]:
    """Return a row for each number of steps."""
    pde, grid = student.pde, student.grid
    eps = student.eps(range(samples), SEED)
    params = student.params(range(samples), SEED)
    plain = student.generate_physical(eps, params)
    began = time.perf_counter()
    solved, moved = solutions(pde, grid, Samples(plain.cpu(), params))
    solver = (time.perf_counter() - began) / samples
    limit = correct(pde, grid, plain.double(), params, LARGEST)
    truncation = errors(student, limit, solved)

    def job(steps: int) -> Callable[[], object]:
        return lambda: correct(pde, grid, plain, params, steps)

    call = times({0: lambda: student.generate(eps, params)})[0]
    spent = times({steps: job(steps) for steps in STEPS if steps})
    before = errors(student, plain, solved)
    rows: list[Row] = []
    for steps in STEPS:
        found = correct(pde, grid, plain, params, steps)
        residual = residual_rms(pde, grid, found, params)
        to_solver = errors(student, found, solved)
        row: Row = {"pde": name, "points": grid.shape[1], "network": network, "steps": steps, "samples": samples}
        row |= {"residual_l2": residual["l2"], "residual_dual": residual["dual"], "boundary": residual["boundary"]}
        row["solution_error"] = float(to_solver.mean())
        row["scheme_error"] = float(errors(student, found, limit).mean())
        row["worse"] = int((to_solver > torch.maximum(before, truncation) * (1 + 1e-6) + 1e-6).sum())
        row["network_ms"] = 1e3 * call / samples
        row["head_ms"] = 1e3 * spent[steps] / samples if steps else 0.0
        row["share"] = row["head_ms"] / row["network_ms"]
        row["solver_ms"] = 1e3 * solver
        row["inputs_moved"] = moved
        if rows:
            last = rows[-1]
            fall = row["scheme_error"] / max(last["scheme_error"], 1e-30)
            row["rate"] = fall ** (1 / (steps - last["steps"]))
        rows.append(row)
    return rows


def main() -> None:
    """Measure the students of each equation and write the rows."""
    parser = options(__doc__, "head")
    parser.add_argument("--pde", nargs="+", choices=sorted(PDES), default=sorted(PDES))
    parser.add_argument("--folder", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--samples", type=int, default=64)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.pde:
        for network in ("student-lambda0", "student"):
            rows = measure(name, load_student(asked.folder / name / network), network, asked.samples)
            kept = merged(asked.json, rows, ("pde", "network", "steps"))
            kept.sort(key=lambda row: (row["pde"], row["network"], row["steps"]))
            result = {"rows": kept, "meta": circumstances(seed=SEED)}
            save(asked.json, result)
    finish(asked.json, result)


if __name__ == "__main__":
    main()
