"""The values of docs/metrics.md: every metric of some rows of the demo, one line each."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import number, source, table

MARKERS = "<!-- metrics: rebuilt by", "<!-- end of metrics -->"
ROWS = {
    "truth": "truth",
    "trivial": "trivial",
    "shuffled": "shuffled",
    "teacher-heun-18": "teacher",
    "student-head0": "student, network alone",
    "student": "student",
}
LINES = {
    "solution_error": "solution error",
    "residual_dual": "residual dual",
    "residual_l2": "residual l2",
    "residual_abs": "residual abs",
    "boundary_rms": "boundary",
    "swd_excess": "SWD excess",
    "patch_swd": "patch SWD",
    "spectrum_error": "spectrum error",
    "feature_excess": "feature excess",
    "mmse": "MMSE",
    "smse": "SMSE",
    "phase_error": "phase error",
    "nearest_training": "nearest training",
}


def page(result: dict[str, Any]) -> str:
    """Return the table."""
    rows = {row["method"]: row for row in result["rows"]}
    shown = [rows[name] for name in ROWS]
    lines = [[title, *(number(row[key], 2) for row in shown)] for key, title in LINES.items()]
    for channel in shown[0]["variance_ratio"]:
        lines.append([f"variance of {channel}", *(number(row["variance_ratio"][channel], 2) for row in shown)])
    first = shown[0]
    return f"""{table(["metric", *ROWS.values()], lines)}

Darcy flow on 32 x 32 points, {first["n_samples"]} samples a row, means over {len(result["runs"])} runs. The floor of the SWD
is {number(first["swd_floor"])}, that of the feature distance {number(first["feature_floor"])}. {source("demo")}."""
