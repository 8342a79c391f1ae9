"""The report of a run: its contenders on held-out truths. Writes report/metrics.json and report/index.html."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidscale.compare.contender import NONE, Contender, contenders
from pidscale.compare.measure import row
from pidscale.compare.questions import Reference, question, reference
from pidscale.compare.report import write_report
from pidscale.config import Settings, UserError
from pidscale.dataset.problem import Problem, open_problem
from pidscale.files import write_atomic
from pidscale.generator import artifact
from pidscale.generator.generator import Generator
from pidscale.generator.load import check_fits, load_student, load_teacher
from pidscale.methods import Method
from pidscale.methods.base import Outcome, Question, apply_finish, ask
from pidscale.methods.controls import solutions
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import Samples, shown_channels
from pidscale.plain import finite, json_text
from pidscale.run.bad_samples import settled
from pidscale.run.phases import versions
from pidscale.run.places import fetch_teacher, home_of, is_made, run_folder, teacher_folder

Progress = Callable[[int, int, str], None]
"""Called with the number of rows done, the number of all rows, and the name of the next row."""


def open_generators(settings: Settings, problem: Problem, device: torch.device) -> dict[str, Generator]:
    """Load the teacher of a run and its students.

    Args:
        settings: Settings of the run.
        problem: Equation, grid, units and data of the run.
        device: Device of the networks.

    Returns:
        By name: `teacher`, the control `student-lambda0` if there is one, and `student`.

    Raises:
        UserError: When a generator is missing, or has another equation or grid than the run.
    """
    folder = run_folder(settings)
    teacher = fetch_teacher(settings, folder)
    is_made("distill", settings)  # fetched, if it lies in a store
    for path, command, other in (
        (teacher, "train", "set distill.teacher to the teacher of this run's students"),
        (folder / "student", "distill", "name another run"),
    ):
        if not path.exists():
            shown = home_of(settings).where(path.name) if path.parent == folder else path
            raise UserError(f"{shown}: no such folder; run `pidscale {command}` first, or {other}")
    needs_teacher = settings.evaluate.calls or settings.distill.teacher
    found: dict[str, Generator] = {"teacher": load_teacher(teacher, device)}
    for name in (artifact.CONTROL, "student"):
        if name == "student" or (folder / name / artifact.CARD).exists():
            with_teacher = teacher if name == "student" and needs_teacher else None  # refused if it is another's
            found[name] = load_student(folder / name, device, with_teacher)
    remedy = "give the settings that this run was made with, or another run.name"
    for name, generator in found.items():
        check_fits(generator, teacher if name == "teacher" else folder / name, problem.pde, problem.grid, remedy)
    return found


@dataclass
class Comparison:
    """Contenders that answer one question, measured one after the other. Each generator is asked once by each method.

    Attributes:
        question: The question.
        generators: Generators by name.
        against: Truths and floors.
        batch: Number of samples handled at once.
    """

    question: Question
    generators: Mapping[str, Generator]
    against: Reference
    batch: int

    def __post_init__(self) -> None:
        self.samples: dict[str, Samples] = {}
        self.moved: dict[str, int] = {}  # input values that the solver did not accept, by row
        self._outcomes: dict[tuple[str, Method, int], Outcome] = {}
        self._solved: dict[tuple[str, Method, bool], tuple[Tensor, float]] = {}

    def measure(self, contender: Contender) -> dict[str, Any]:
        """Ask a contender and return its row."""
        generator = self.generators.get(contender.trained) or self.generators["teacher"]
        if contender.head is not None:
            generator = generator.with_head(contender.head)
        key = (contender.trained, contender.method, generator.head)
        if key not in self._outcomes:
            batch = len(self.question) if contender.trained == NONE else self.batch
            self._outcomes[key] = ask(contender.method, generator, self.question, batch)
        outcome = self._outcomes[key]
        solved, spent = self._solutions(contender, outcome, generator)
        if contender.finish is not None and contender.finish.solves:
            samples = Samples(solved.to(outcome.samples.fields.dtype), outcome.samples.params)
            outcome = Outcome(samples, replace(outcome.cost, seconds=outcome.cost.seconds + spent))
        elif contender.finish is not None:
            outcome = apply_finish(contender.finish, generator, outcome)
        self.samples[contender.name] = outcome.samples
        seconds = 0.0 if contender.trained == NONE else generator.card.metrics.train_seconds or 0.0
        return row(contender, outcome, seconds, self.against, solved)

    def _solutions(self, contender: Contender, outcome: Outcome, generator: Generator) -> tuple[Tensor, float]:
        """Return numerical solutions for the contender's inputs, and the seconds for each.

        No finish changes inputs, and a head only by a constraint that goes with it.
        """
        if contender.trained == NONE:
            return self.against.truth.fields, 0.0
        key = (contender.trained, contender.method, generator.steps_apart and generator.head > 0)
        if key not in self._solved:
            problem = self.against.problem
            began = time.perf_counter()
            name = contender.name if contender.finish is None else contender.trained
            solved, self.moved[name] = solutions(problem.pde, problem.grid, outcome.samples)
            self._solved[key] = solved, (time.perf_counter() - began) / len(solved)
        return self._solved[key]


def evaluate(settings: Settings, progress: Progress = lambda done, total, note: None) -> dict[str, Any]:
    """Measure every contender of a run and write its report.

    A missing generator, or a test split with too few truths, raises a UserError.

    Args:
        settings: Settings of the run.
        progress: Called before each row and at the end.

    Returns:
        `rows` and `meta`, as report/metrics.json holds them.
    """
    home = home_of(settings)
    folder = home.folder
    home.pull()
    problem = settled(open_problem(settings.pde, settings.data), folder, Mesh(), print)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generators = open_generators(settings, problem, device)
    against = reference(settings, problem)
    asked = question(settings, generators["teacher"], against.truth)
    comparison = Comparison(asked, generators, against, settings.evaluate.batch)
    wanted = list(contenders(settings.evaluate, generators))
    rows = []
    for done, contender in enumerate(wanted):
        progress(done, len(wanted), contender.name)
        rows.append(comparison.measure(contender))
    progress(len(wanted), len(wanted), "")
    meta: dict[str, Any] = {"versions": versions(), "device": str(device), "threads": torch.get_num_threads()}
    meta["channels_shown"] = [problem.pde.channels[i].name for i in shown_channels(problem.pde)]
    meta |= {"input_points_raised": comparison.moved, "settings": folder.name}
    result = {"rows": rows, "meta": meta}
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    _keep_other(report, settings.evaluate.samples)
    write_atomic(report / "metrics.json", json_text(result, indent=1).encode())
    write_report(report / "index.html", result, problem, comparison.samples, against.truth)
    _write_cards(settings, rows, list(generators))
    home.push_all("report")
    for name in generators:
        if (folder / name).is_dir():
            home.push_generator(name)
    return result


def _write_cards(settings: Settings, rows: list[dict[str, Any]], names: list[str]) -> None:
    """Write the row of each generator into its card, except for a teacher of another run."""
    folder = run_folder(settings)
    for name in names:
        if name == "teacher" and teacher_folder(settings, folder) != folder / name:
            continue
        wanted = f"teacher-heun-{max(settings.evaluate.teacher_steps)}" if name == "teacher" else name
        measured = next(r for r in rows if r["method"] == wanted)
        metrics = artifact.read_card(folder / name).metrics
        artifact.update_metrics(folder / name, replace(metrics, report=finite(measured)))


def _keep_other(report: Path, samples: int) -> None:
    """Rename an existing report of another number of samples, so that its name ends in that number."""
    path = report / "metrics.json"
    try:
        before = json.loads(path.read_text())["rows"][0]["n_samples"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return
    if before != samples:
        for one in (path, report / "index.html"):
            if one.exists():
                one.rename(one.with_stem(f"{one.stem}-{before}"))


def report_path(settings: Settings) -> Path:
    """Return the path of a run's report."""
    return run_folder(settings) / "report" / "index.html"
