"""A small teacher, its lambda = 0 student and its student for every equation, and one table of what they are worth.

python -m benchmarks.zoo [--pde heat wave ...] [--folder runs/zoo] [--json benchmarks/results/zoo.json] [--page docs/zoo.md]

Each equation is a run of launch/demo.py with the settings below, on 32 points a side and two workers; a run that is there
already is not repeated. The file keeps the rows of the equations that are not asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import options, processor, save
from pidscale.pde import PDES

COMMON = [
    "data.train=3072",
    "data.test=1536",
    "teacher.steps=500",
    "distill.steps=400",
    "distill.ring=24",
    "distill.reuse=17",
    "distill.solver_steps=12",
    "evaluate.samples=768",
    "evaluate.teacher_steps=[18]",
]
# Smooth periodic fields: a Fourier network that need not pad. Fewer frames than by default: more to learn from in minutes.
WAVES = ["model=fno_tiny", "model.change.padding=0.0", "model.change.width=16"]
LONGER = ["distill.steps=700", "distill.ring=32", "distill.reuse=22"]
OWN: dict[str, list[str]] = {  # what an equation needs beside that
    "advection_diffusion": [*WAVES, "pde.params.frames=5", "pde.params.speed=0.25", "pde.params.duration=0.5"],
    "burgers": ["pde.points=32", "pde.params.viscosity=0.02", "distill.physics_weight=2", *LONGER],
    "darcy": ["distill.physics_weight=2"],
    "heat": [*WAVES, "pde.params.frames=5"],
    "helmholtz": LONGER,
    "navier_stokes": [*WAVES, "pde.params.frames=6"],
    "poisson": LONGER,
    "reaction_diffusion": ["pde.params.frames=5", "pde.params.duration=2.0"],
    "stokes": ["pde.points=32"],
    "wave": [*WAVES, "pde.params.frames=5"],
}
KEYS = ["residual_l2", "residual_dual", "boundary_rms", "solution_error", "swd_excess", "nfe"]
METHODS = {"teacher": "teacher-heun-18", "twin": "student-lambda0", "student": "student"}


def command(name: str, folder: Path) -> list[str]:
    """The run of one equation."""
    places = [f"run.folder={folder}", f"run.name={name}", f"data.path={folder / 'shards' / name}"]
    return [sys.executable, "launch/demo.py", f"pde={name}", *places, *COMMON, *OWN.get(name, [])]


def row(name: str, folder: Path) -> dict[str, Any]:
    """What the report of an equation says of teacher, twin and student, and whether physics has paid."""
    report = json.loads((folder / name / "report" / "metrics.json").read_text())
    rows = {one["method"]: one for one in report["rows"]}
    settings = json.loads((folder / name / "config.json").read_text())
    found: dict[str, Any] = {"pde": name, "points": settings["pde"]["points"]}
    for label, method in METHODS.items():
        found |= {f"{label}_{key}": rows[method][key] for key in KEYS}
        found[f"{label}_variance_least"] = min(rows[method]["variance_ratio"].values())
    student = rows["student"]
    found |= {
        key: student[key] for key in ("residual_floor", "residual_trivial", "train_seconds", "n_samples", "seeds")
    }
    allowed = max(1.25 * found["teacher_swd_excess"], 0.025)
    found |= {
        "beats_twin_in_solution": found["student_solution_error"] < found["twin_solution_error"],
        "beats_twin_in_dual": found["student_residual_dual"] < found["twin_residual_dual"],
        "keeps_distance": found["student_swd_excess"] <= allowed,
    }
    return found | {"versions": report["meta"]["versions"]}


HEADS = {
    "solution_error": "solution error",
    "residual_dual": "dual",
    "residual_l2": "l2",
    "boundary_rms": "boundary",
    "swd_excess": "SWD excess",
}


def _cells(one: dict[str, Any]) -> list[str]:
    values = [" / ".join(f"{one[f'{label}_{key}']:.3g}" for label in METHODS) for key in HEADS]
    paid = {"solution": "beats_twin_in_solution", "dual": "beats_twin_in_dual", "distance": "keeps_distance"}
    return [
        one["pde"],
        *values,
        "yes" if all(map(one.get, paid.values())) else "not in " + ", ".join(k for k, v in paid.items() if not one[v]),
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """One line an equation as markdown: teacher / twin / student for each measure."""
    lines = [["equation", *HEADS.values(), "pays"], ["---"] * (len(HEADS) + 2), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _why(one: dict[str, Any]) -> str:
    """What the rest of an equation's row says of a distance that was not kept."""
    allowed, twin = max(1.25 * one["teacher_swd_excess"], 0.025), one["twin_swd_excess"]
    if twin > allowed:
        said = f"{twin:.3g} in the twin, which has no residual: one call in place of many costs it, not physics"
    else:
        said = f"{twin:.3g} in the twin: the residual's weight costs it"
    return f"{one['pde']}: an SWD excess of {one['student_swd_excess']:.3g} where {allowed:.3g} is allowed, and {said}."


def page(result: dict[str, Any]) -> str:
    """docs/zoo.md."""
    rows, meta = result["rows"], result["meta"]
    lost = "\n".join(_why(one) for one in rows if not one["keeps_distance"])
    missing = ", ".join(sorted(PDES.keys() - {one["pde"] for one in rows}))
    return f"""# The zoo

A teacher of some minutes, its student without physics and its student, for every equation, on 32 points a side, by
`python -m benchmarks.zoo`. Each cell: teacher ({rows[0]["teacher_nfe"]} calls) / lambda = 0 student / student (one call
each), {rows[0]["n_samples"]} samples from the same noise against truths that no training saw. Lower is better in every
column of numbers.

{table(rows)}
{f"{chr(10)}Not run yet: {missing}.{chr(10)}" if missing else ""}
*pays*: the student beats its lambda = 0 twin in solution error and in the dual residual, and its SWD excess is at most
the larger of 1.25 times the teacher's and 0.025. Residuals are relative to the scale of each equation: compare along a row
and not down a column. Settings: benchmarks/zoo.py; these are runs of minutes, and not
always the defaults of [equations/](equations/README.md): 5 or 6 frames where there is time, Burgers with viscosity 0.02 on 32
points, `fno_tiny` for heat, advection-diffusion, Navier-Stokes and wave, twice the default weights of the residual for
Burgers and Darcy. Where the first weights cost distance, others were chosen after a run or two on these same seeds.

{lost}

{meta["machine"]}, one seed each. Source: benchmarks/results/zoo.json, whose rows say commit, seeds and seconds.
"""


def main() -> None:
    """Run what is missing, then write and print the table."""
    parser = options(__doc__, "zoo", "docs/zoo.md")
    parser.add_argument("--pde", nargs="*", choices=sorted(PDES), default=sorted(PDES))
    parser.add_argument("--folder", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    rows = {one["pde"]: one for one in known}
    for name in arguments.pde:
        subprocess.run(command(name, arguments.folder.absolute()), check=True)
        rows[name] = row(name, arguments.folder)
        result = {"rows": [rows[key] for key in sorted(rows)], "meta": {"machine": processor()}}
        save(arguments.json, result)
    result = json.loads(arguments.json.read_text())
    arguments.page.write_text(page(result))
    print(table(result["rows"]))


if __name__ == "__main__":
    main()
