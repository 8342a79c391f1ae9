"""Runs of the launch scripts, and the rows that methods of a finished run earn on its held-out truths.

The studies reach `pidscale.compare` through this module alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.report import Row
from pidscale.compare import contender, report
from pidscale.compare.contender import Made
from pidscale.compare.run import Reference, reference, row
from pidscale.config import Settings, from_plain
from pidscale.dataset.problem import Problem, open_problem
from pidscale.generator.load import Generator, load_student

STYLE = report.STYLE  # of an HTML page


def launch(script: str, *arguments: str) -> None:
    """Run a launch script to its end. One that has finished a run of this name leaves it alone."""
    subprocess.run([sys.executable, f"launch/{script}.py", *arguments], check=True)


def image(figure: Figure) -> str:
    """Return a figure as an HTML element."""
    return report.image(figure)


def open_run(run: Path) -> tuple[Settings, Problem]:
    """Return the settings of a run and the problem that it is about."""
    settings = from_plain(Settings, json.loads((run / "config.json").read_text()))
    return settings, open_problem(settings.pde, settings.data)


@dataclass(frozen=True)
class Comparison:
    """Methods of one run, compared on the same noise and with the same held-out truths."""

    settings: Settings
    problem: Problem
    against: Reference

    def noise(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return the noise and the parameters that every method is given."""
        e = self.settings.evaluate
        eps = generator.eps(range(e.samples), e.seed, "evaluate")
        params = generator.params(range(e.samples), e.seed, "evaluate")
        return eps, params

    def row(self, made: Made) -> Row:
        """Return the row of samples, whose inputs are solved numerically for it."""
        return row(made, self.against, self._solved(made))

    def rows_with_solver(self, made: Made) -> list[Row]:
        """Return the row of samples, and that of their inputs with the solver's solution in place of theirs."""
        began = time.perf_counter()
        solved = self._solved(made)
        ms = (time.perf_counter() - began) / len(made.samples.fields) * 1e3
        return [row(made, self.against, solved), row(contender.solved(made, solved, ms), self.against, solved)]

    def controls(self) -> list[Row]:
        """Return the rows of the truths, of null solutions and of strangers' solutions."""
        truth = self.against.truth
        made = contender.references(self.problem.pde, self.problem.grid, truth)
        return [row(one, self.against, truth.fields) for one in made]

    def _solved(self, made: Made) -> Tensor:
        return contender.solutions(self.problem.pde, self.problem.grid, made.samples)[0]


def open_comparison(run: Path) -> Comparison:
    """Open a run and read its held-out truths."""
    settings, problem = open_run(run)
    return Comparison(settings, problem, reference(settings, problem))


def one_call(comparison: Comparison, folder: Path) -> Made:
    """Return the samples of a student in one call each."""
    student = load_student(folder)
    eps, params = comparison.noise(student)
    return contender.generate("student", student, eps, params, comparison.settings.evaluate.batch)


def generated(
    comparison: Comparison, teacher: Path, steps: tuple[int, ...], students: dict[str, Path], refine_steps: int
) -> Iterator[Made]:
    """Yield the samples of a teacher by number of Heun steps, and those of its students, all from the same noise.

    The teacher's last samples and those of `student-lambda0` are yielded smoothed too; those of `piddm-1` with 2 and 8 calls,
    and refined.

    Args:
        comparison: What all of them are compared on.
        teacher: The folder of the teacher.
        steps: Numbers of Heun steps, in the order of the rows.
        students: The folder of each student by its name.
        refine_steps: Evaluations at most of a refined sample.
    """
    e = comparison.settings.evaluate
    pde = comparison.problem.pde
    grid = comparison.problem.grid
    generator = load_student(teacher)
    noise = comparison.noise(generator)
    for count in steps:
        last = contender.generate(f"teacher-heun-{count}", generator, *noise, e.batch, count)
        yield last
    yield contender.smoothed(last, "teacher+smooth3", pde, grid)
    for name, folder in students.items():
        student = load_student(folder, teacher=teacher)
        made = contender.generate(name, student, *noise, e.batch)
        yield made
        if name == "student-lambda0":
            yield contender.smoothed(made, f"{name}+smooth3", pde, grid)
        if name == "piddm-1":
            for calls in (2, 8):
                yield contender.generate_more(f"piddm-{calls}", student, *noise, e.batch, calls)
            yield contender.refined("piddm-ref", student, e.samples, e.seed, e.batch, refine_steps)
