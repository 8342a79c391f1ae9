"""docs/zoo.md, from the rows of benchmarks.studies.zoo."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import number, source, table
from benchmarks.report import Row
from benchmarks.studies.zoo import METHODS, OWN, allowed_distance
from pidscale.pde import PDES

COLUMNS = {
    "solution_error": "solution error",
    "residual_dual": "dual",
    "residual_l2": "l2",
    "boundary_rms": "boundary",
    "swd_excess": "SWD excess",
}
HEADS = ["equation", *COLUMNS.values(), "pays"]
PAYS = {"solution": "beats_control_in_solution", "dual": "beats_control_in_dual", "distance": "keeps_distance"}


def _line(row: Row) -> list[str]:
    """An equation: teacher / control / student for each measure."""
    values = [" / ".join(number(row[f"{label}_{key}"]) for label in METHODS) for key in COLUMNS]
    lost = [word for word, key in PAYS.items() if not row[key]]
    return [row["pde"], *values, f"not in {', '.join(lost)}" if lost else "yes"]


def _why(row: Row) -> str:
    """What the rest of an equation's row says of a distance that was not kept."""
    allowed = allowed_distance(row)
    control = row["control_swd_excess"]
    if control > allowed:
        reason = f"{control:.3g} in the control, which has no residual: one call in place of many costs it, not physics"
    else:
        reason = f"{control:.3g} in the control: the residual's weight costs it"
    excess = row["student_swd_excess"]
    return f"{row['pde']}: an SWD excess of {excess:.3g} where {allowed:.3g} is allowed, and {reason}."


def _weights() -> str:
    """Return the factors of the residual's weights that are not 1."""
    key = "distill.physics_weight="
    found = [f"{word[len(key) :]} ({pde})" for pde, words in OWN.items() for word in words if word.startswith(key)]
    return " and ".join(found)


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    rows = result["rows"]
    meta = result["meta"]
    lost = "\n".join(_why(row) for row in rows if not row["keeps_distance"])
    missing = ", ".join(sorted(PDES.keys() - {row["pde"] for row in rows}))
    return f"""# The zoo

What a few minutes of training reach for every equation, and whether the residual in the loss pays: a teacher, its control
(*lambda = 0*: a student without the residual) and its student, on 32 points a side, without a head. By
`python -m benchmarks.studies.zoo`. Each cell: teacher ({rows[0]["teacher_nfe"]} calls) / control / student (one call each),
{rows[0]["n_samples"]} samples from the same noise against truths that no training saw. Lower is better in every column of
numbers.

{table(HEADS, map(_line, rows))}
{f"{chr(10)}Not run yet: {missing}.{chr(10)}" if missing else ""}
*pays*: the student beats its control in solution error and in the dual residual, and its SWD excess is at most
the larger of 1.25 times the teacher's and 0.025. Residuals are relative to the scale of each equation: compare along a row
and not down a column. Settings: benchmarks/studies/zoo.py; these are runs of minutes, and not
always the defaults of [equations/](equations/README.md): 5 or 6 frames where there is time, Burgers with viscosity 0.02 on 32
points, `fno_tiny` for heat, advection-diffusion, Navier-Stokes and wave, and {_weights()} times the default
weights of the residual. Where the first weights cost distance, others were chosen after a run or two on these same seeds.

{lost}

{meta["machine"]}, one seed each. {source("zoo")}, whose rows say commit, seeds and seconds.
"""
