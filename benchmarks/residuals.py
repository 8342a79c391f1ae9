"""What each equation's residual tells apart: truth, nothing, strangers, noise, a wrong parameter; and its scheme's order.

python -m benchmarks.residuals [--points 64] [--samples 64] [--json benchmarks/results/residuals.json]

Every score is relative to the equation's own scale: 1 is that scale. Row values are root mean squares over samples.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.manufactured import CASES, observed_order
from benchmarks.report import options, processor, save
from pidscale.ops.grid import Grid
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import Pde, Samples, shuffled, truths
from pidscale.pde.residuals import residual_rms, residual_squares
from pidscale.run.phases import versions

WRONG: dict[
    str, dict[str, Any]
] = {  # the parameters that a wrong-parameter field is made with; those that vary: by 1.2
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
    """Fields of the same equation with another parameter, beside the parameters that they should have."""
    if pde.varying:
        fields, params = truths(pde, SEED, range(samples), grid)
        return Samples(fields, 1.2 * params)
    # of Poisson, which has no coefficient: k = 1 in place of 0
    other = build_pde("helmholtz") if name == "poisson" else build_pde(name, WRONG[name])
    return truths(other, SEED, range(samples), grid)


def row(name: str, points: int, samples: int) -> dict[str, Any]:
    """All scores of one equation."""
    pde = build_pde(name)
    grid = pde.grid(points)
    fields, params = truths(pde, SEED, range(samples), grid)
    stored = fields.float()
    noise = 1 + 1e-3 * torch.randn(fields.shape, generator=torch.Generator().manual_seed(SEED), dtype=fields.dtype)
    sets = {
        "floor64": fields,
        "floor32": stored,
        "trivial": pde.trivial(stored),
        "shuffled": shuffled(pde, grid, stored),
        "mean_field": stored.mean(dim=0, keepdim=True).expand_as(stored),
        "noise": fields * noise,
    }
    made = {label: Samples(these, params) for label, these in sets.items()}
    made["wrong_parameter"] = wrong_parameter(name, pde, grid, samples)
    found: dict[str, Any] = {"pde": name, "points": points, "samples": samples}
    for label, these in made.items():
        scores = residual_rms(pde, grid, *these)
        found |= {label: scores["l2"], f"{label}_dual": scores["dual"]}
    order, case = observed_order(name), CASES[name]
    residual_squares(pde, grid, stored, params)  # tables and caches are made before the clock starts
    began = time.perf_counter()
    residual_squares(pde, grid, stored, params)
    rate = samples / (time.perf_counter() - began)
    return found | {
        "scale": pde.residual_scale,
        "order": order[0] if order else None,
        "order_dual": order[1] if order else None,
        "expected_order": case.order if case else "exact",
        "samples_per_second": rate,
    }


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure every equation, print a table, write JSON."""
    parser = options(__doc__, "residuals")
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--samples", type=int, default=64)
    arguments = parser.parse_args()
    rows = [row(name, arguments.points, arguments.samples) for name in sorted(PDES)]
    for norm, suffix in (("l2", ""), ("dual", "_dual")):
        scores = [f"{label}{suffix}" for label in (*SETS, "order")]
        columns = ["pde", "scale", *scores, "expected_order", "samples_per_second"]
        heads = [column.removesuffix("_dual") for column in columns]
        print(f"in {norm}, relative to the scale")
        print("  ".join(f"{head:>12.12}" for head in heads))
        for one in rows:
            print("  ".join(f"{_cell(one[c]):>12.12}" for c in columns))
    meta = {"versions": versions(), "machine": processor(), "seed": SEED}
    save(arguments.json, {"rows": rows, "meta": meta})


if __name__ == "__main__":
    main()
