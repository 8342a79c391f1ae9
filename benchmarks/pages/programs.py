"""The table of programs in docs/student.md, from what benchmarks.speed.programs measured."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import plain, source, table
from benchmarks.report import Row

MARKERS = "<!-- programs: rebuilt by", "<!-- end of programs -->"
FORMS = ("pt2", "onnx")


def _times(row: Row, form: str) -> str:
    """Milliseconds of a program, and its ratio to PyTorch with least and greatest."""
    low, high = (plain(value, 2) for value in row[f"{form}_spread"])
    return f"{plain(row[f'{form}_ms'], 2)}, {plain(row[f'{form}_ratio'], 2)} ({low} to {high})"


def page(result: dict[str, Any]) -> str:
    """Return the table."""
    lines = []
    for row in result["rows"]:
        apart = max(row[f"{form}_apart"] for form in FORMS)
        network = {"unet": "UNet", "fno": "FNO"}[row["network"]]
        name = f"{row['student']}, {network}"
        steps = str(row["head"])
        lines.append([name, steps, str(row["batch"]), plain(row["torch_ms"], 2)])
        lines[-1] += [*(_times(row, form) for form in FORMS), f"{apart:.1e}"]
    heads = ["student", "solver steps", "batch", "PyTorch, ms", ".pt2", "ONNX", "fields differ by"]
    meta = result["meta"]
    return f"""{table(heads, lines)}

Milliseconds of processor time for a sample on one thread, medians of {meta["repeats"]} turns; behind those of
programs the ratio to PyTorch, with the least and the greatest of a turn. The difference is that of the worst channel,
relative to it. {meta["machine"]}, torch {meta["versions"]["torch"]}. {source("programs")}."""
