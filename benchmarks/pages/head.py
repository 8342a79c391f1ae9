"""docs/head_measured.md, from the rows of benchmarks.proofs.head."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import groups, number, source, table
from benchmarks.report import Row
from pidscale.pde import PDES

COLUMNS = {
    "solution_error": "solution error",
    "scheme_error": "scheme error",
    "residual_dual": "dual",
    "residual_l2": "l2",
    "rate": "rate",
    "theory": "theory",
    "worse": "worse",
    "head_ms": "+ ms",
    "share": "share",
}
NETWORKS = {"student": "student", "student-lambda0": "lambda = 0"}


def _lines(rows: list[Row]) -> list[list[str]]:
    """The lines of one equation, both networks."""
    return [
        [NETWORKS[row["network"]], str(row["steps"]), *(number(row.get(key)) for key in COLUMNS)]
        for name in NETWORKS
        for row in rows
        if row["network"] == name
    ]


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    rows = result["rows"]
    meta = result["meta"]
    missing = ", ".join(sorted(PDES.keys() - {row["pde"] for row in rows}))
    parts = []
    for name, own in groups(rows, "pde").items():
        first = own[0]
        times = (
            f"network {number(first['network_ms'])} ms, the generator's solver {number(first['solver_ms'])} ms a sample"
        )
        parts.append(f"## {name}\n\n{times}.\n\n{table(['network', 'steps', *COLUMNS.values()], _lines(own))}")
    return f"""# The head, measured

What [solver steps](head.md) do behind the students of the [zoo](zoo.md), by `python -m benchmarks.proofs.head`:
{rows[0]["samples"]} samples of each network, {rows[0]["points"]} points a side, float32.

*solution error*: to the numerical solution of the generator, for the same inputs. *scheme error*: to the solution that
steps lead to, that of the residual's own discretisation. *dual*, *l2*: the residual, relative to the equation's own
scale. *rate*: the factor of the scheme error a step since the line before; it ends at float32. *theory*: what it may be
at most in the energy norm, 2 qᴷ over K steps of conjugate gradients with the contrast of each sample; 0 where a step is
exact. *worse*: samples whose error to the numerical solution is above that without steps and above the distance of the
two solutions. *+ ms*: milliseconds a sample on one core, and *share*: this relative to the network's call.
{f"{chr(10)}Not run yet: {missing}.{chr(10)}" if missing else ""}
{(chr(10) * 2).join(parts)}

{meta["machine"]}. {source("head")}, whose rows say seconds and samples.
"""
