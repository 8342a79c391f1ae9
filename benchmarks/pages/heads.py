"""docs/head_training.md, from the rows of benchmarks.studies.heads."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.pages.builder import groups, number, source, table
from benchmarks.report import Row

COLUMNS = {
    "solution_error": "solution error",
    "residual_dual": "dual",
    "residual_l2": "l2",
    "swd_excess": "SWD excess",
    "phase_error": "phase error",
}
SHOWN = (0, 4)  # steps behind the student


def _mean(rows: list[Row], key: str) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    return number(statistics.fmean(values)) if values else ""


def _section(rows: list[Row]) -> str:
    """The table of one equation: means over seeds for each weight and each head in training."""
    lines = []
    for (head, weight), own in sorted(_by_student(rows).items()):
        cells = []
        for steps in SHOWN:
            same = [row for row in own if row["steps"] == steps]
            cells += [_mean(same, key) for key in COLUMNS]
        lines.append([str(head), f"{weight:g}", *cells])
    heads = [f"{title}, {steps} steps" for steps in SHOWN for title in COLUMNS.values()]
    return table(["head in training", "weight", *heads], lines)


def _by_student(rows: list[Row]) -> dict[tuple[int, float], list[Row]]:
    found: dict[tuple[int, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row["trained_head"], row["weight"]), []).append(row)
    return found


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    rows = result["rows"]
    sections = []
    for pde, own in groups(rows, "pde").items():
        seeds = ", ".join(str(seed) for seed in sorted(groups(own, "seed")))
        sections.append(f"## {pde}, seeds {seeds}\n\n{_section(own)}")
    body = "\n\n".join(sections)
    return f"""# The head in training, measured

`python -m benchmarks.studies.heads`: students of one teacher each, with the residual's weights times 0, 0.1 and 1, trained
without a [head](head.md) or through one of 4 steps. Each is measured with 0 and with 4 steps behind it;
{rows[0]["n_samples"]} samples, means over seeds. The settings are those of the [zoo](zoo.md), runs of minutes.

{body}

{result["meta"]["machine"]}. {source("heads")}, which has 1, 2 and 8 steps as well.
"""
