"""What each equation's residual tells apart: truth, nothing, other samples, noise, a wrong parameter; and its scheme's order.

python -m benchmarks.proofs.residuals [--points 64] [--samples 64] [--json benchmarks/results/residuals.json]

Every score is relative to the equation's own scale: 1 is that scale. Row values are root mean squares over samples.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.proofs.manufactured import CASES, observed_order
from benchmarks.report import Row, circumstances, options, save
from pidscale.ops.grid import Grid
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import Pde, Samples, shuffled, truths
from pidscale.pde.residuals import residual_rms, residual_squares

# the parameters that a wrong-parameter field is made with; those that vary from sample to sample are multiplied by 1.2
WRONG: dict[str, dict[str, Any]] = {
    "burgers": {"viscosity": 0.015},
    "darcy": {"source": 1.1},
    "helmholtz": {"wavenumber": 2.0},
    "navier_stokes": {"viscosity": 2e-3},
    "reaction_diffusion": {"diffusion_u": 2e-3},
    "wave": {"speed": 1.1},
}
SETS = ("floor64", "floor32", "trivial", "shuffled", "mean_field", "noise", "wrong_parameter")
SEED = 0


def wrong_parameter(name: str, pde: Pde, grid: Grid, samples: int) -> Samples:
    """Return fields of the same equation with another parameter, beside the parameters that they should have."""
    if pde.varying:
        fields, params = truths(pde, SEED, range(samples), grid)
        return Samples(fields, 1.2 * params)
    # of Poisson, which has no coefficient: k = 1 in place of 0
    other = build_pde("helmholtz") if name == "poisson" else build_pde(name, WRONG[name])
    return truths(other, SEED, range(samples), grid)


def sets(name: str, pde: Pde, grid: Grid, samples: int) -> dict[str, Samples]:
    """Return the sets of fields that the residual has to tell apart."""
    fields, params = truths(pde, SEED, range(samples), grid)
    stored = fields.float()
    noise = 1 + 1e-3 * torch.randn(fields.shape, generator=torch.Generator().manual_seed(SEED), dtype=fields.dtype)
    found = {
        "floor64": fields,
        "floor32": stored,
        "trivial": pde.trivial(stored),
        "shuffled": shuffled(pde, grid, stored),
        "mean_field": stored.mean(dim=0, keepdim=True).expand_as(stored),
        "noise": fields * noise,
    }
    made = {label: Samples(these, params) for label, these in found.items()}
    return made | {"wrong_parameter": wrong_parameter(name, pde, grid, samples)}


def rate(pde: Pde, grid: Grid, stored: Samples) -> float:
    """Return residuals a second."""
    residual_squares(pde, grid, *stored)  # tables and caches are made before the clock starts
    began = time.perf_counter()
    residual_squares(pde, grid, *stored)
    return len(stored.fields) / (time.perf_counter() - began)


def measure(name: str, points: int, samples: int) -> Row:
    """Return all scores of one equation."""
    pde = build_pde(name)
    grid = pde.grid(points)
    made = sets(name, pde, grid, samples)
    found: Row = {"pde": name, "points": points, "samples": samples}
    for label, these in made.items():
        scores = residual_rms(pde, grid, *these)
        found |= {label: scores["l2"], f"{label}_dual": scores["dual"]}
    order = observed_order(name)
    case = CASES[name]
    return found | {
        "scale": pde.residual_scale,
        "order": order[0] if order else None,
        "order_dual": order[1] if order else None,
        "expected_order": case.order if case else "exact",
        "samples_per_second": rate(pde, grid, made["floor32"]),
    }


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def show(rows: list[Row]) -> None:
    """Print a table of each norm."""
    for norm, suffix in (("l2", ""), ("dual", "_dual")):
        scores = [f"{label}{suffix}" for label in (*SETS, "order")]
        columns = ["pde", "scale", *scores, "expected_order", "samples_per_second"]
        print(f"in {norm}, relative to the scale")
        print("  ".join(f"{column.removesuffix('_dual'):>12.12}" for column in columns))
        for one in rows:
            print("  ".join(f"{_cell(one[column]):>12.12}" for column in columns))


def main() -> None:
    """Measure every equation, print a table and write the rows."""
    parser = options(__doc__, "residuals")
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--samples", type=int, default=64)
    arguments = parser.parse_args()
    rows = [measure(name, arguments.points, arguments.samples) for name in sorted(PDES)]
    show(rows)
    save(arguments.json, {"rows": rows, "meta": circumstances(seed=SEED)})


if __name__ == "__main__":
    main()
