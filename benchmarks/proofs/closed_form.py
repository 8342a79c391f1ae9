"""Distillation where everything is known: Gaussian data with its exact linear teacher; and what a top noise level keeps.

python -m benchmarks.proofs.closed_form [--quick] [--json benchmarks/results/closed_form.json]

The data have independent modes N(0, s^2), so that the denoiser, the flow and every solver are factors of each mode, in
float64. Students are linear too: the PID student is solved for zero loss level by level, with the residual of
distill/objectives/pid.py; the PIDDM one is the least squares match of endpoints. `kept` is the share of the standard
deviation of the strongest mode of real fields which a flow from pure noise of sigma_max has at its end.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Row, circumstances, finish, options
from pidscale.config import NOISES
from pidscale.diffusion.closed_form import GaussianModes
from pidscale.diffusion.noise import KINDS, karras_levels, kept, schedule_for, strongest_mode
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.solvers import integrate
from pidscale.distill.objectives.pid import trajectory_residual
from pidscale.pde import build_pde

MODES = GaussianModes(torch.tensor([0.05, 0.5, 2.0, 8.0], dtype=torch.float64).reshape(1, 1, 1, 4))
ONE = torch.ones_like(MODES.std)
TOP = 80.0
BOTTOM = 0.002
GRIDS = (50, 100, 250, 500, 1000)
CALLS = (4, 18, 64)
HEUN = (50, 200, 800)
POINTS = (32, 64, 128, 256, 512, 1024)
QUICK = (32, 64)
FIELDS = 24


def pid_student(count: int) -> Tensor:
    """Return x(z, t_min) / eps of the student whose residual is zero at every level of the grid.

    Its value at each level is solved for, from that at the level before.
    """
    z = TOP * ONE
    grid = karras_levels(BOTTOM, TOP, count)
    value = torch.zeros_like(z)  # G at the top, where any will do
    for t, s in itertools.pairwise(grid):
        both = partial(
            trajectory_residual, z, value, t_B=t.reshape(1), s_B=s.reshape(1), top=TOP, teacher=MODES.denoise
        )
        left, right = both(torch.zeros_like(z))  # the left side is affine in G at s, with this offset
        slope = both(torch.ones_like(z))[0] - left
        value = (right - left) / slope
    return grid[-1] / TOP * z + (1 - grid[-1] / TOP) * value


def pid() -> list[Row]:
    """Return how far PID students are from the Euler map of their own levels, and from the exact flow."""
    rows = []
    for count in GRIDS:
        student = pid_student(count)
        euler = integrate(MODES.denoise, ONE, karras_levels(BOTTOM, TOP, count), "euler")
        exact = TOP * MODES.flow(TOP, BOTTOM)
        apart = {"from_euler": student - euler, "from_exact": student - exact}
        rows.append({"levels": count} | {name: float(value.abs().max()) for name, value in apart.items()})
    return rows


def piddm() -> list[Row]:
    """Return how far the least squares students of endpoints are from the map of the solver that made them."""
    eps = torch.randn(64, 1, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = []
    for calls in CALLS:
        levels = KINDS["edm"]().levels(calls)
        endpoints = integrate(MODES.denoise, eps, levels, "euler")
        student = (endpoints * eps).sum(dim=0) / eps.square().sum(dim=0)
        solver = integrate(MODES.denoise, ONE, levels, "euler")
        rows.append({"calls": calls, "from_map": float((student - solver).abs().max())})
    return rows


def kinds() -> list[Row]:
    """Return the relative error of Heun's method for each kind of noise, from its own top level down to zero."""
    rows = []
    for kind in NOISES:
        noise = KINDS[kind]()
        exact = noise.sigma_max * MODES.flow(noise.sigma_max, 0.0)
        row: Row = {"kind": kind, "sigma_max": noise.sigma_max}
        for steps in HEUN:
            wrong = integrate(MODES.denoise, ONE, noise.levels(steps), "heun") / exact - 1
            row[f"heun_{steps}"] = float(wrong.abs().max())
        rows.append(row)
    return rows


def modes(sizes: tuple[int, ...]) -> list[Row]:
    """Return the strongest mode of Poisson fields, and what sigma_max = 80 and each kind's own choice keep of it."""
    pde = build_pde("poisson")
    rows = []
    for points in sizes:
        grid = pde.grid(points)
        fields = np.stack([pde.sample(0, n, grid)[0] for n in range(FIELDS)])
        mean = fields.mean(axis=(0, 2, 3))
        std = fields.std(axis=(0, 2, 3))
        x = Normaliser(tuple(mean.tolist()), tuple(std.tolist())).encode(torch.from_numpy(fields))
        strongest = strongest_mode(x)
        row = {"points": points, "strongest_mode": strongest, "kept_80": kept(80.0, strongest)}
        rows.append(row | {kind: kept(schedule_for(kind, strongest, points).sigma_max, strongest) for kind in NOISES})
    return rows


def main() -> None:
    """Solve and write the rows."""
    parser = options(__doc__, "closed_form")
    parser.add_argument("--quick", action="store_true", help="small fields only")
    arguments = parser.parse_args()
    rows = modes(QUICK if arguments.quick else POINTS)
    result = {"pid": pid(), "piddm": piddm(), "kinds": kinds(), "rows": rows, "meta": circumstances()}
    finish(arguments.json, result, "closed_form")


if __name__ == "__main__":
    main()
