"""The pictures of docs/method.md and the figures beside them, all from fields of Darcy flow and a finished demo.

python -m benchmarks.studies.method_pictures [--run runs/demo] [--folder docs] [--json benchmarks/results/method.json]

`make demo` makes the run. What each list of rows holds:

    mean    residual of the exact mean of truths given a noisy field, by noise level, for Darcy flow and for Poisson's
            equation, which is linear. The mean is that over a finite set of truths (exact_mean.py): no network errs in it.
    calls   the teacher by its number of network calls, student and control in one call, all without solver steps
    pairs   how far student and control are from the teacher's sample of the same noise, and of another noise
    norms   two wrong pressures in the l2 and in the dual norm: white noise of a thousandth, a smooth error of a tenth

Residuals are root mean squares over samples, errors means. `python -m benchmarks.pages` puts the figures into the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import Row, circumstances, finish, options
from benchmarks.studies import method_figures as figures
from benchmarks.studies.exact_mean import ExactMean, averaged, exact_mean
from pidscale import seeds
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.solvers import SOLVERS, integrate
from pidscale.generator.generator import Generator, Teacher
from pidscale.generator.load import load_student, load_teacher
from pidscale.methods.controls import solutions
from pidscale.metrics import solution_error
from pidscale.pde import build_pde
from pidscale.pde.base import Samples, solution_mask, truths
from pidscale.pde.residuals import residual_rms

POINTS = 32
SET = 2048  # truths that an exact mean is taken over
HELD = 128  # truths beside them, to which noise is added
LEVELS = (80.0, 40.0, 20.0, 14.0, 10.0, 7.0, 5.0, 3.5, 2.5, 1.8, 1.2, 0.8, 0.5, 0.35, 0.2, 0.1)
PATH = (0, 5, 7, 8, 9, 12)  # states of the path of 18 steps that are drawn
PATH_STEPS = 18
STEPS = (4, 9, 18, 36, 72)  # of Heun's method
SAMPLES = 256
SHOWN = 3
SEED = 5
NOISE, SMOOTH = 1e-3, 0.1  # of the root mean square of the pressure
FINER = (32, 64, 128)
MEASURED = 16  # truths on each of these grids


def _noise(stream: str, count: int, shape: tuple[int, int, int]) -> Tensor:
    return seeds.normal(SEED, stream, list(range(count)), shape).double()


def means(exact: ExactMean) -> list[Row]:
    """Return the residual of the exact mean at each noise level, and over how many truths it is taken (the median)."""
    held = exact.normaliser.encode(truths(exact.pde, 1, range(HELD), exact.grid).fields)
    eps = _noise("method/mean", HELD, (len(exact.pde.channels), *exact.grid.shape))
    rows = []
    for sigma in LEVELS:
        noisy = held + sigma * eps
        found = residual_rms(exact.pde, exact.grid, exact.physical(exact.denoise(noisy, held.new_full((HELD,), sigma))))
        of = float(averaged(exact.weights(noisy, sigma)).median())
        rows.append({"pde": exact.pde.name, "sigma": sigma, "averaged": of} | found)
    return rows


def path(exact: ExactMean) -> list[tuple[float, Tensor, Tensor]]:
    """Return noise level, noisy state and mean of one path from noise to a field, both [1, C, Y, X] in physical units."""
    levels = EdmNoise().levels(PATH_STEPS)
    states: list[Tensor] = []
    channels = len(exact.pde.channels)
    integrate(exact.denoise, _noise("method/path", 1, (channels, *exact.grid.shape)), levels, "heun", states)
    chosen = [(float(levels[k]), states[k]) for k in PATH]
    return [(s, exact.physical(x), exact.physical(exact.denoise(x, torch.tensor([s])))) for s, x in chosen]


def measured(generator: Generator, x: Tensor) -> dict[str, float]:
    """Return residuals and solution error of fields in units of the model, without the steps of a head."""
    fields = generator.normaliser.decode(x)
    samples = Samples(fields, fields.new_zeros(len(fields), 0))
    solved, _ = solutions(generator.pde, generator.grid, samples)
    mask = solution_mask(generator.pde, generator.grid)
    residual = residual_rms(generator.pde, generator.grid, *samples)
    return residual | {"solution_error": solution_error(fields[:, mask], solved[:, mask])}


def calls(teacher: Teacher, one_call: Mapping[str, Generator]) -> list[Row]:
    """Return what each number of network calls reaches from the same noise."""
    eps = teacher.eps(range(SAMPLES), SEED)
    params = teacher.params(range(SAMPLES), SEED)
    rows: list[Row] = []
    for steps in STEPS:
        found = measured(teacher, teacher.generate(eps, params, steps))
        rows.append({"network": "teacher", "calls": SOLVERS["heun"].calls(steps)} | found)
    for name, generator in one_call.items():
        rows.append({"network": name, "calls": 1} | measured(generator, generator.generate(eps, params)))
    return rows


def pairs(teacher: Teacher, one_call: Mapping[str, Generator]) -> list[Row]:
    """Return distances between samples, relative to the deviation of the teacher's samples about their mean."""
    eps = teacher.eps(range(SAMPLES), SEED)
    params = teacher.params(range(SAMPLES), SEED)
    wanted = teacher.generate(eps, params)
    size = (wanted - wanted.mean(dim=0)).square().mean().sqrt()
    rows: list[Row] = []
    for name, generator in one_call.items():
        made = generator.generate(eps, params)
        same = (made - wanted).square().mean().sqrt() / size
        other = (made - wanted.roll(1, dims=0)).square().mean().sqrt() / size
        rows.append({"network": name, "same_noise": float(same), "other_noise": float(other)})
    return rows


def wrong_pressures(points: int, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return truths of Darcy flow, and the same with two wrong pressures by name; edges stay 0."""
    pde = build_pde("darcy")
    grid = pde.grid(points)
    truth = truths(pde, 1, range(count), grid).fields
    size = truth[:, 1:].square().mean(dim=(2, 3), keepdim=True).sqrt()
    half = torch.sin(torch.pi * torch.linspace(0, 1, points, dtype=torch.float64))
    bump = (half[:, None] * half).expand(count, 1, points, points)
    noise = torch.zeros_like(bump)
    noise[..., 1:-1, 1:-1] = _noise("method/norms", count, (1, points - 2, points - 2))
    found = {}
    for name, share, error in (("noise", NOISE, noise), ("smooth", SMOOTH, bump)):
        scaled = share * size * error / error.square().mean(dim=(2, 3), keepdim=True).sqrt()
        found[name] = torch.cat([truth[:, :1], truth[:, 1:] + scaled], dim=1)
    return truth, found


def norms() -> list[Row]:
    """Return both norms of both wrong pressures on each grid."""
    pde = build_pde("darcy")
    rows = []
    for points in FINER:
        truth, wrong = wrong_pressures(points, MEASURED)
        for name, fields in wrong.items():
            error = solution_error(fields[:, 1], truth[:, 1])
            residual = residual_rms(pde, pde.grid(points), fields)
            rows.append({"wrong": name, "points": points, "solution_error": error} | residual)
    return rows


def draw(folder: Path, exact: ExactMean, rows: Mapping[str, list[Row]], networks: Mapping[str, Generator]) -> None:
    """Draw all pictures."""
    figures.save(folder / "method_path.png", figures.path_figure(exact.pde, exact.grid, path(exact)))
    figures.save(folder / "method_curves.png", figures.curves_figure(rows["mean"], rows["calls"]))
    teacher = networks["teacher"]
    noise = teacher.eps(range(SHOWN), SEED), teacher.params(range(SHOWN), SEED)
    made = {name: one.normaliser.decode(one.generate(*noise)) for name, one in networks.items()}
    figures.save(folder / "method_pairs.png", figures.pairs_figure(teacher.pde, teacher.grid, made))
    truth, wrong = wrong_pressures(FINER[1], 1)
    figures.save(folder / "method_norms.png", figures.norms_figure(build_pde("darcy"), truth, wrong))


def main() -> None:
    """Measure, draw and write."""
    parser = options(__doc__, "method")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    teacher = load_teacher(asked.run / "teacher")
    one_call: dict[str, Generator] = {
        name: load_student(asked.run / name).with_head(0) for name in ("student-lambda0", "student")
    }
    exact = {name: exact_mean(build_pde(name), POINTS, 0, range(SET)) for name in ("darcy", "poisson")}
    rows: dict[str, Any] = {
        "mean": [row for one in exact.values() for row in means(one)],
        "calls": calls(teacher, one_call),
        "pairs": pairs(teacher, one_call),
        "norms": norms(),
    }
    draw(asked.folder, exact["darcy"], rows, {"teacher": teacher, **one_call})
    sizes = {"truths": SET, "held": HELD, "samples": SAMPLES, "points": POINTS, "noise": NOISE, "smooth": SMOOTH}
    finish(asked.json, rows | {"meta": circumstances(seed=SEED, **sizes)}, "method_mean")


if __name__ == "__main__":
    main()
