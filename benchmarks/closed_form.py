"""Distillation where everything is known: Gaussian data with its exact linear teacher; and what a top noise level keeps.

python -m benchmarks.closed_form [--json benchmarks/results/closed_form.json] [--page docs/closed_form.md]

The data have independent modes N(0, s^2), so that the denoiser, the flow and every solver are factors of each mode, in
float64. Students are linear too: the PID student is solved for zero loss level by level, with the residual of
distill/objectives/pid.py; the PIDDM one is the least squares match of endpoints. `kept` is the share of the standard
deviation of the strongest mode of real fields which a flow from pure noise of sigma_max has at its end.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import finish, options, processor, table
from pidscale.config import NOISES
from pidscale.diffusion.noise import KINDS, karras_levels, kept, schedule_for, strongest_mode
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.solvers import integrate
from pidscale.distill.objectives.pid import trajectory_residual
from pidscale.pde import build_pde
from pidscale.run.phases import versions

SPREADS = torch.tensor([0.05, 0.5, 2.0, 8.0], dtype=torch.float64).reshape(1, 1, 1, 4)
TOP, BOTTOM = 80.0, 0.002
GRIDS = (50, 100, 250, 500, 1000)
POINTS = (32, 64, 128, 256, 512, 1024)
FIELDS = 24


def gaussian(x: Tensor, sigma: Tensor, network_level: Tensor | None = None) -> Tensor:
    """The exact denoiser."""
    s = sigma.double().reshape(-1, 1, 1, 1)
    return SPREADS**2 / (SPREADS**2 + s**2) * x


def exact(sigma_max: float, sigma: float) -> Tensor:
    """The factor of each mode from noise of sigma_max to a level."""
    return sigma_max * ((SPREADS**2 + sigma**2) / (SPREADS**2 + sigma_max**2)).sqrt()


def pid_student(count: int) -> Tensor:
    """x(z, t_min) / eps of the student whose residual is zero at every level of the grid: its next value is solved for."""
    z, grid = TOP * torch.ones_like(SPREADS), karras_levels(BOTTOM, TOP, count)
    value = torch.zeros_like(z)  # G at the top, where any will do
    for t, s in itertools.pairwise(grid):
        both = partial(trajectory_residual, z, value, t_B=t.reshape(1), s_B=s.reshape(1), top=TOP, teacher=gaussian)
        left, right = both(torch.zeros_like(z))  # the left side is affine in G at s, with this offset
        slope = both(torch.ones_like(z))[0] - left
        value = (right - left) / slope
    return grid[-1] / TOP * z + (1 - grid[-1] / TOP) * value


def piddm_student(calls: int) -> tuple[Tensor, Tensor]:
    """Factors of the least squares student, and of the solver's own map of `calls` Euler steps."""
    eps = torch.randn(64, 1, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = KINDS["edm"]().levels(calls)
    endpoints = integrate(gaussian, eps, levels, "euler")
    return (endpoints * eps).sum(dim=0) / eps.square().sum(dim=0), integrate(
        gaussian, torch.ones_like(SPREADS), levels, "euler"
    )


def students() -> dict[str, Any]:
    """How far the students are from the maps that they should be."""
    rows = []
    for count in GRIDS:
        found, grid = pid_student(count), karras_levels(BOTTOM, TOP, count)
        euler = integrate(gaussian, torch.ones_like(SPREADS), grid, "euler")
        rows.append(
            {
                "levels": count,
                "from_euler": float((found - euler).abs().max()),
                "from_exact": float((found - exact(TOP, BOTTOM)).abs().max()),
            }
        )
    piddm = [(calls, *piddm_student(calls)) for calls in (4, 18, 64)]
    return {
        "pid": rows,
        "piddm": [{"calls": n, "from_map": float((w - m).abs().max())} for n, w, m in piddm],
    }


def kinds() -> list[dict[str, Any]]:
    """Each kind of noise against the exact flow from its own top level, and against the law of the data."""
    rows = []
    for kind in NOISES:
        noise, one = KINDS[kind](), torch.ones_like(SPREADS)
        row: dict[str, Any] = {"kind": kind, "sigma_max": noise.sigma_max}
        for steps in (50, 200, 800):
            wrong = integrate(gaussian, one, noise.levels(steps), "heun") / exact(noise.sigma_max, 0.0) - 1
            row[f"heun_{steps}"] = float(wrong.abs().max())
        rows.append(row)
    return rows


def modes() -> list[dict[str, Any]]:
    """The strongest mode of Poisson fields, and what sigma_max = 80 and each kind's own choice keep of it."""
    pde, rows = build_pde("poisson"), []
    for points in POINTS:
        grid = pde.grid(points)
        fields = np.stack([pde.sample(0, n, grid)[0] for n in range(FIELDS)])
        mean, std = fields.mean(axis=(0, 2, 3)), fields.std(axis=(0, 2, 3))
        x = Normaliser(tuple(mean.tolist()), tuple(std.tolist())).encode(torch.from_numpy(fields))
        strongest = strongest_mode(x)
        row = {"points": points, "strongest_mode": strongest, "kept_80": kept(80.0, strongest)}
        rows.append(row | {kind: kept(schedule_for(kind, strongest, points).sigma_max, strongest) for kind in NOISES})
    return rows


def page(result: dict[str, Any]) -> str:
    """The page."""
    pid = [[str(r["levels"]), f"{r['from_euler']:.1e}", f"{r['from_exact']:.2e}"] for r in result["pid"]]
    piddm = [[str(r["calls"]), f"{r['from_map']:.1e}"] for r in result["piddm"]]
    kind = [
        [r["kind"], f"{r['sigma_max']:g}", *(f"{r[f'heun_{n}']:.1e}" for n in (50, 200, 800))] for r in result["kinds"]
    ]
    mode = [
        [str(r["points"]), f"{r['strongest_mode']:.1f}", *(f"{r[k]:.2%}" for k in ("kept_80", *NOISES))]
        for r in result["rows"]
    ]
    doubled = result["pid"][2:]
    orders = [math.log2(a["from_exact"] / b["from_exact"]) for a, b in itertools.pairwise(doubled)]
    return f"""# Distillation where everything is known

`python -m benchmarks.closed_form`, float64. Gaussian data of four independent modes (standard deviations 0.05 to 8), whose
denoiser is linear and exact.

## A PID student without loss

Its map of unit noise at the lowest level, against the Euler map of the same N levels and against the exact flow, from
which it is of order 1 / N (between N = {", ".join(str(r["levels"]) for r in doubled)}:
orders {", ".join(f"{order:.2f}" for order in orders)}).

{table(["N", "from Euler's map", "from the exact map"], pid)}

## A PIDDM student without loss

Least squares on endpoints of K Euler steps, against the map of those steps.

{table(["K", "from the solver's map"], piddm)}

## Kinds of noise

Relative error of Heun's method against the exact flow, from each kind's own top level down to zero; the last step, from
sigma_min to zero, leaves an error of its own, which more steps do not remove.

{table(["noise", "sigma_max", "50 steps", "200", "800"], kind)}

## What the top level keeps

Poisson fields, {FIELDS} samples, normalised: standard deviation of their strongest orthonormal mode, and the share of it that
a flow from pure noise of sigma_max has at its end: of 80, and of the sigma_max that each kind of noise takes for these data.

{table(["points a side", "strongest mode", "80", *NOISES], mode)}
"""


def main() -> None:
    """Solve, print, write JSON and the page."""
    arguments = options(__doc__, "closed_form", "docs/closed_form.md").parse_args()
    result = students() | {"kinds": kinds(), "rows": modes(), "meta": {"versions": versions(), "machine": processor()}}
    finish(arguments, result, page)


if __name__ == "__main__":
    main()
