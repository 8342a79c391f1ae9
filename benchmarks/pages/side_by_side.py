"""docs/side_by_side.md and a summary for the README, from the rows of benchmarks.studies.side_by_side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.pages.builder import groups, number, source, table
from benchmarks.report import Row
from benchmarks.studies.measure import break_even, means

BEGIN = "<!-- side by side: rebuilt by"
END = "<!-- end of side by side -->"
OURS = "piddm"  # begins the names of the rows of the student
HEAD = "+head-4"
SAMPLES = {
    "nfe": "calls",
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "residual_abs": "mean abs. residual",
    "solution_error": "solution error",
    "phase_error": "phase error",
    "swd_excess": "SWD excess",
    "feature_excess": "feature excess",
    "ms_per_sample": "ms / sample",
    "train_seconds": "training s",
    "n_samples": "n",
}
ANSWERS = {
    "nfe": "calls",
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "ms_per_sample": "ms / field",
}
BRIEF = {key: SAMPLES[key] for key in ("nfe", "solution_error", "residual_dual", "swd_excess", "ms_per_sample")}


def _cell(row: Row, key: str) -> str:
    """A mean with its deviation over seeds."""
    deviation = row["spread"].get(key)
    return number(row.get(key)) + (f" ± {number(deviation, 1)}" if deviation else "")


def _lines(rows: list[Row], columns: dict[str, str]) -> list[list[str]]:
    return [[row["method"], *(_cell(row, key) for key in columns)] for row in rows]


def _of_task(task: str, rows: list[Row]) -> str:
    """The table of one equation and task."""
    columns = SAMPLES
    if task != "sample":
        errors = [key for key in dict.fromkeys(key for row in rows for key in row) if key.startswith("error_")]
        errors += ["misclassified"] if any("misclassified" in row for row in rows) else []
        columns = {key: key.replace("_", " ") for key in errors} | ANSWERS
    columns = {key: head for key, head in columns.items() if any(row.get(key) is not None for row in rows)}
    return f"### {task}\n\n{table(['method', *columns.values()], _lines(rows, columns))}"


def _paid(rows: list[Row], students: list[str]) -> str:
    """The table that says after how many samples a student has paid."""
    heads = ["student", "seconds beside the teacher's", "samples to pay beside the teacher", "beside a solver"]
    keys = ("further_seconds", "teacher", "solver")
    lines = [
        [row["method"], *("never" if row[key] is None else f"{row[key]:,.0f}" for key in keys)]
        for row in break_even(rows, students)
    ]
    return f"### When a student has paid\n\n{table(heads, lines)}" if lines else ""


def _equation(equation: str, rows: list[Row], students: list[str]) -> str:
    tasks = groups(rows, "task")
    parts = [f"## {equation}, seeds {', '.join(str(seed) for seed in rows[0]['seeds'])}"]
    for task, own in tasks.items():
        parts.append(_of_task(task, own))
        if task == "sample":
            parts.append(_paid(own, students))
    return "\n\n".join(part for part in parts if part)


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    parts = result["meta"]["parts"]
    students = list(next(iter(parts.values()))["compare"]["students"])
    body = "\n\n".join(
        _equation(name, rows, students) for name, rows in groups(list(means(result["rows"])), "equation").items()
    )
    failed = "".join(
        f"\n- {one['equation']}, seed {one['seed']}, {one['row']}, {one['task']}: {one['failed']}"
        for one in result["failed"]
    )
    commits = sorted({row["commit"][:12] for row in result["rows"]})
    return f"""# Methods side by side, measured

`python -m benchmarks.studies.side_by_side`, {result["meta"]["hours"]:.1f} hours on {result["meta"]["machine"]}, at commits
{", ".join(commits)}. [compare.md](compare.md) says what is compared and what makes it fair; the same table with pictures is
[papers.html](../benchmarks/results/papers.html). Numbers are means over seeds ± their standard deviation.
{f"{chr(10)}Cells that failed:{chr(10)}{failed}{chr(10)}" if failed else ""}
{body}

{source("papers")}.
"""


def _chosen(rows: list[Row]) -> Iterator[Row]:
    """The rows of a summary: controls, the teacher, the student, and the best of the others by two measures."""
    by_name = {row["method"]: row for row in rows}
    for name in ("trivial", "teacher-18", f"teacher-18{HEAD}", OURS, f"{OURS}{HEAD}"):
        if name in by_name:
            yield by_name[name]

    def field(name: str) -> bool:
        apart = ("truth", "trivial", "shuffled", "nearest", "teacher", "longer", OURS)
        return not name.startswith(apart) and "+solve" not in name

    others = [row for name, row in by_name.items() if field(name)]
    best: tuple[Callable[[Row], float], ...] = (
        lambda row: float(row["solution_error"]),
        lambda row: float(row["swd_excess"]),
    )
    for group in (
        [row for row in others if HEAD not in row["method"]],
        [row for row in others if HEAD in row["method"]],
    ):
        found = {one["method"]: one for one in (min(group, key=key) for key in best)} if group else {}
        yield from found.values()


def summary(result: dict[str, Any]) -> str:
    """Return the summary."""
    lines = []
    for equation, rows in groups(list(means(result["rows"])), "equation").items():
        own = [row for row in rows if row["task"] == "sample"]
        lines += [[equation, *line] for line in _lines(list(_chosen(own)), BRIEF)]
    return f"""{table(["equation", "method", *BRIEF.values()], lines)}

Of the other methods, those nearest to the equation's solution and nearest to the truths, without and with four solver steps
behind them (`{HEAD}`). Means over seeds ± their standard deviation. {source("papers")}."""
