"""Runs of the launch scripts, and the rows that methods of a finished run earn on its held-out truths.

The studies reach `pidscale.compare` through this module alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import Row
from pidscale.compare.contender import STUDENT, Contender
from pidscale.compare.questions import question, reference
from pidscale.compare.run import Comparison
from pidscale.compare.sheet import break_even, means, page_text
from pidscale.compare.tasks import COLUMNS, NOISE, SHARE, TUNED, answer_row, observation
from pidscale.config import Settings, from_plain
from pidscale.dataset.problem import Problem, open_problem
from pidscale.generator.generator import Generator
from pidscale.generator.load import load_student
from pidscale.methods.one_call import OneCall
from pidscale.pde import build_pde
from pidscale.pde.base import Samples

__all__ = [
    "COLUMNS",
    "NOISE",
    "SHARE",
    "TUNED",
    "answer_row",
    "break_even",
    "launch",
    "means",
    "observation",
    "open_comparison",
    "open_run",
    "sheet_page",
    "student_folder",
]


def student_folder(pde: str, seed: int) -> Path:
    """Return where the student of an equation and seed lies in the repository: those of seed 0 are for users."""
    return Path("students") / pde if seed == 0 else Path("benchmarks/students") / f"{pde}-{seed}"


def launch(script: str, *arguments: str) -> None:
    """Run a launch script to its end. One that has finished a run of this name leaves it alone."""
    subprocess.run([sys.executable, f"launch/{script}.py", *arguments], check=True)


def open_run(run: Path) -> tuple[Settings, Problem]:
    """Return the settings of a run and the problem that it is about."""
    settings = from_plain(Settings, json.loads((run / "config.json").read_text()))
    return settings, open_problem(settings.pde, settings.data)


def open_comparison(run: Path, generators: Mapping[str, Generator]) -> Comparison:
    """Open a run, read its held-out truths, and put the question of its settings to these generators."""
    settings, problem = open_run(run)
    against = reference(settings, problem)
    asked = question(settings, next(iter(generators.values())), against.truth)
    return Comparison(asked, generators, against, settings.evaluate.batch)


def sheet_page(
    rows: list[Row],
    failed: list[Row],
    parts: Mapping[str, Mapping[str, Any]],
    shown: Mapping[str, Mapping[str, Samples]],
) -> str:
    """Return the page of a comparison that was measured in parts.

    Args:
        rows: Rows of all parts.
        failed: Cells that failed.
        parts: What each part was measured with, the `meta` of its table.
        shown: Samples to be drawn, by equation and method.

    Returns:
        The page in HTML.
    """
    equations = {}
    for meta in parts.values():
        for name, networks in meta["settings"].items():
            pde = from_plain(Settings, networks["teacher"]).pde
            equation = build_pde(pde.name, pde.params)
            equations[name] = equation, equation.grid(pde.points or 32)
    last = list(parts.values())[-1]
    seeds = sorted({row["seed"] for row in rows})
    meta = {**last, "compare": {**last["compare"], "seeds": seeds}}
    return page_text(rows, failed, meta, equations, shown)


def student_row(run: Path, head: int | None = None) -> Row:
    """Return the row of a run's student in one call, behind so many solver steps; None for those that its card names."""
    student = load_student(run / "student")
    comparison = open_comparison(run, {STUDENT: student if head is None else student.with_head(head)})
    return comparison.measure(Contender(STUDENT, STUDENT, OneCall()))
