"""What solver steps behind a student's call do: residual and solution error after each number of steps, and their time.

    python -m benchmarks.proofs.head [--folder runs/zoo] [--pde darcy heat ...] [--samples 64] [--picture docs/head.png]

The students are those of `python -m benchmarks.studies.zoo`. `solution_error` is relative to the generator's own
numerical solution for the same inputs; `scheme_error` to the solution that steps lead to (that of the residual's own
discretisation: further steps change nothing). `worse` counts samples whose error to the numerical solution is larger than
without steps, and larger than the distance of the two numerical solutions. Times are medians of interleaved repeats, one
thread, in ms a sample; `share` is relative to the network's call. `rate` is the factor of the scheme error a step since
the row before, `theory` what it may be over all steps: 2^(1/K) q for K steps of conjugate gradients with q from the
contrast of each sample, 0 where a step is exact. The picture has the residual of Darcy's student before and after.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.report import Row, circumstances, finish, merged, options, save
from pidscale.figures.fields import residual_map
from pidscale.generator.load import load_student
from pidscale.generator.student import Student
from pidscale.methods.controls import solutions
from pidscale.ops.window import Window
from pidscale.pde import PDES
from pidscale.pde.base import Samples, solution_mask
from pidscale.pde.darcy import Darcy
from pidscale.pde.head import LARGEST, correct, is_exact
from pidscale.pde.residuals import residual_rms

STEPS = (0, 1, 2, 4, 8)
REPEATS = 7
SEED = 5
SHOWN = 1.0  # residual at the ends of the picture's colour scale


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


def theory(student: Student, fields: Tensor, steps: int) -> float | None:
    """Return the factor of the error that theory allows a step, over so many steps, mean over samples; None without one."""
    if is_exact(student.pde):
        return 0.0
    if not isinstance(student.pde, Darcy):
        return None
    coefficient = fields[:, 0].double().clamp_min(student.pde.lowest).flatten(1)
    root = (coefficient.amax(dim=1) / coefficient.amin(dim=1)).sqrt()
    return float((2 ** (1 / steps) * (root - 1) / (root + 1)).mean())


def picture(student: Student, samples: int = 3) -> Figure:
    """Return the residual of samples after each number of steps, on one colour scale."""
    window = Window(student.grid)
    figure = Figure(figsize=(1.9 * len(STEPS) + 0.9, 1.9 * samples), layout="constrained")
    axes = figure.subplots(samples, len(STEPS), squeeze=False)
    for column, steps in enumerate(STEPS):
        fields = student.sample(samples, seed=SEED, head=steps)
        made = Samples(student.join(fields), student.params(range(samples), SEED))
        norms = student.residual(fields)["l2"]
        for line, (values, norm) in enumerate(zip(residual_map(student.pde, window, made), norms, strict=True)):
            axis = axes[line][column]
            image = axis.imshow(values, vmin=-SHOWN, vmax=SHOWN, cmap="RdBu_r", origin="lower")
            axis.set_title(f"{steps} steps, l2 {norm:.2g}", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.colorbar(image, ax=axes, shrink=0.6, label="residual / source").ax.tick_params(labelsize=7)
    figure.set_dpi(70)
    return figure


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
            row["theory"] = theory(student, plain, steps)
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
    parser.add_argument("--picture", type=Path, default=Path("docs/head.png"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.pde:
        for network in ("student-lambda0", "student"):
            rows = measure(name, load_student(asked.folder / f"{name}-0" / network), network, asked.samples)
            kept = merged(asked.json, rows, ("pde", "network", "steps"))
            kept.sort(key=lambda row: (row["pde"], row["network"], row["steps"]))
            result = {"rows": kept, "meta": circumstances(seed=SEED)}
            save(asked.json, result)
        if name == "darcy":
            canvas = FigureCanvasAgg(picture(load_student(asked.folder / f"{name}-0" / "student")))
            canvas.print_png(str(asked.picture), metadata={"Software": None})
    finish(asked.json, result, "head")


if __name__ == "__main__":
    main()
