"""The figures beside the pictures of docs/method.md, from what benchmarks.studies.method_pictures measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import number, plain, source, table

NETWORKS = {
    "teacher": "teacher",
    "student-lambda0": "one call, without the residual",
    "student": "one call, with the residual",
}


def markers(name: str) -> tuple[str, str]:
    """Return the markers of a part of the page."""
    return f"<!-- {name}: rebuilt by", f"<!-- end of {name} -->"


def path(result: dict[str, Any]) -> str:
    """Return how many truths the mean is taken over, by noise level."""
    meta = result["meta"]
    rows = [row for row in result["mean"] if row["pde"] == "darcy"]
    few = next(row for row in rows if row["averaged"] < 1.5)
    many = next(row for row in reversed(rows) if row["averaged"] > 100)
    side = meta["points"]
    over = plain(many["averaged"], 2)
    return f"""The set has {meta["truths"]} truths on {side} x {side} points, with a standard deviation of 0.5. At a noise
level of {number(many["sigma"])} the mean is taken over about {over} of them, at {number(few["sigma"])} over one. Over all
fields that Darcy flow may have, which lie closer together than those of a finite set, it is a mean down to lower levels."""


def mean(result: dict[str, Any]) -> str:
    """Return the largest residuals of the mean of both equations."""
    most = {
        (pde, norm): number(max(row[norm] for row in result["mean"] if row["pde"] == pde), 2)
        for pde in ("darcy", "poisson")
        for norm in ("l2", "dual")
    }
    return f"""Left: the largest residual of the mean is {most["darcy", "l2"]} in l2 and {most["darcy", "dual"]} in the dual
norm for Darcy flow, where a null solution has 1, and {most["poisson", "l2"]} in l2 for Poisson, which is rounding in float64.
Root mean squares over {result["meta"]["held"]} truths outside the set, with noise added. {source("method")}."""


def calls(result: dict[str, Any]) -> str:
    """Return what each number of calls reaches."""
    lines = [
        [
            NETWORKS[row["network"]],
            str(row["calls"]),
            *(plain(row[key], 2) for key in ("solution_error", "dual", "l2")),
        ]
        for row in result["calls"]
    ]
    meta = result["meta"]
    return f"""{table(["network", "calls", "solution error", "dual", "l2"], lines)}

{meta["samples"]} samples from the same noise, without a head; the demo of one seed. {meta["machine"]}."""


def pairs(result: dict[str, Any]) -> str:
    """Return how near the samples of the same noise are."""
    student, control = (
        {row["network"]: row for row in result["pairs"]}[name] for name in ("student", "student-lambda0")
    )
    reached = {row["network"]: row for row in result["calls"]}
    times = {norm: number(reached["student-lambda0"][norm] / reached["student"][norm], 2) for norm in ("l2", "dual")}
    same = number(control["same_noise"], 2)
    return f"""Distance to the teacher's sample, relative to the spread of its samples: {same} without the residual and
{number(student["same_noise"], 2)} with it from the same noise, {number(student["other_noise"], 2)} from another. The penalty
makes the residual {times["l2"]} times smaller in l2 and {times["dual"]} times in the dual norm."""


def norms(result: dict[str, Any]) -> str:
    """Return both norms of both wrong pressures."""
    words = {"noise": "white noise", "smooth": "smooth bump"}
    lines = [
        [words[row["wrong"]], str(row["points"]), *(number(row[key], 2) for key in ("solution_error", "l2", "dual"))]
        for row in sorted(result["norms"], key=lambda row: (row["wrong"], row["points"]))
    ]
    return table(["error of the pressure", "points a side", "true error", "residual l2", "residual dual"], lines)


PARTS = {"path": path, "mean": mean, "calls": calls, "pairs": pairs, "norms": norms}
