"""docs/closed_form.md, from what benchmarks.proofs.closed_form computed."""

from __future__ import annotations

import itertools
import math
from typing import Any

from benchmarks.pages.builder import table
from benchmarks.proofs.closed_form import FIELDS
from benchmarks.report import Row
from pidscale.config import NOISES


def _pid(rows: list[Row]) -> str:
    lines = [[str(row["levels"]), f"{row['from_euler']:.1e}", f"{row['from_exact']:.2e}"] for row in rows]
    return table(["N", "from Euler's map", "from the exact map"], lines)


def _piddm(rows: list[Row]) -> str:
    return table(["K", "from the solver's map"], [[str(row["calls"]), f"{row['from_map']:.1e}"] for row in rows])


def _kinds(rows: list[Row]) -> str:
    lines = [
        [row["kind"], f"{row['sigma_max']:g}", *(f"{row[f'heun_{steps}']:.1e}" for steps in (50, 200, 800))]
        for row in rows
    ]
    return table(["noise", "sigma_max", "50 steps", "200", "800"], lines)


def _modes(rows: list[Row]) -> str:
    lines = [
        [str(row["points"]), f"{row['strongest_mode']:.1f}", *(f"{row[key]:.2%}" for key in ("kept_80", *NOISES))]
        for row in rows
    ]
    return table(["points a side", "strongest mode", "80", *NOISES], lines)


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    doubled = result["pid"][2:]
    orders = [math.log2(a["from_exact"] / b["from_exact"]) for a, b in itertools.pairwise(doubled)]
    return f"""# Distillation where everything is known

What solvers and objectives compute, without the error of a network: where the data are Gaussian, the denoiser, the flow and
the best student are known exactly. By `python -m benchmarks.proofs.closed_form`, in float64. Gaussian data
of four independent modes (standard deviations 0.05 to 8),
whose denoiser is linear and exact.

## A PID student without loss

Its map of unit noise at the lowest level, against the Euler map of the same N levels and against the exact flow, from
which it is of order 1 / N (between N = {", ".join(str(r["levels"]) for r in doubled)}:
orders {", ".join(f"{order:.2f}" for order in orders)}).

{_pid(result["pid"])}

## A PIDDM student without loss

Least squares on endpoints of K Euler steps, against the map of those steps.

{_piddm(result["piddm"])}

## Kinds of noise

Relative error of Heun's method against the exact flow, from each kind's own top level down to zero; the last step, from
sigma_min to zero, leaves an error of its own, which more steps do not remove.

{_kinds(result["kinds"])}

## What the top level keeps

Poisson fields, {FIELDS} samples, normalised: standard deviation of their strongest orthonormal mode, and the share of it that
a flow from pure noise of sigma_max has at its end: of 80, and of the sigma_max that each kind of noise takes for these data.

{_modes(result["rows"])}
"""
