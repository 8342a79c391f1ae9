"""A run's report: its contenders on one truth set that no training saw. Writes report/metrics.json and report/index.html."""

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
from pidscale.methods.base import Outcome, Question, ask, finished
from pidscale.methods.controls import solutions
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import Samples, shown_channels
from pidscale.plain import finite, json_text
from pidscale.run.bad_samples import settled
from pidscale.run.phases import run_folder, teacher_folder, versions

Progress = Callable[[int, int, str], None]


def open_generators(settings: Settings, problem: Problem, device: torch.device) -> dict[str, Generator]:
    """Load the teacher of a run and its students.

    Args:
        settings: Those of the run.
        problem: Its problem.
        device: Where they compute.

    Returns:
        `teacher`, `student-lambda0` where there is one, and `student`.

    Raises:
        UserError: When one is missing, or is of another equation or grid.
    """
    folder = run_folder(settings)
    taught = teacher_folder(settings, folder)
    for path, command, other in (
        (taught, "train", "set distill.teacher to that of this run's students"),
        (folder / "student", "distill", "name another run"),
    ):
        if not path.exists():
            raise UserError(f"{path}: nothing to measure there; run `pidscale {command}` first, or {other}")
    checks = taught if settings.evaluate.calls or settings.distill.teacher else None  # then a student says whose it is
    found: dict[str, Generator] = {"teacher": load_teacher(taught, device)}
    for name in (artifact.TWIN, "student"):
        if name == "student" or (folder / name / artifact.CARD).exists():
            found[name] = load_student(folder / name, device, checks if name == "student" else None)
    remedy = "give the settings that this run was made with, or another run.name"
    for name, generator in found.items():
        check_fits(generator, taught if name == "teacher" else folder / name, problem.pde, problem.grid, remedy)
    return found


@dataclass
class Comparison:
    """Contenders on one question, measured one after the other. Each way of asking a network is asked once.

    Attributes:
        question: What they are asked.
        generators: Networks by name.
        against: What rows are held against.
        batch: Samples handled together.
    """

    question: Question
    generators: Mapping[str, Generator]
    against: Reference
    batch: int

    def __post_init__(self) -> None:
        self.samples: dict[str, Samples] = {}
        self.raised: dict[str, int] = {}
        self._outcomes: dict[tuple[str, Method], Outcome] = {}
        self._solved: dict[tuple[str, Method], tuple[Tensor, float]] = {}

    def measure(self, contender: Contender) -> dict[str, Any]:
        """Ask a contender and return its row."""
        key = (contender.trained, contender.method)
        generator = self.generators.get(contender.trained) or self.generators["teacher"]
        if key not in self._outcomes:
            batch = len(self.question) if contender.trained == NONE else self.batch
            self._outcomes[key] = ask(contender.method, generator, self.question, batch)
        outcome = self._outcomes[key]
        solved, spent = self._solutions(contender, outcome)
        if contender.finish is not None and contender.finish.solves:
            samples = Samples(solved.to(outcome.samples.fields.dtype), outcome.samples.params)
            outcome = Outcome(samples, replace(outcome.cost, seconds=outcome.cost.seconds + spent))
        elif contender.finish is not None:
            outcome = finished(contender.finish, generator, outcome)
        self.samples[contender.name] = outcome.samples
        seconds = 0.0 if contender.trained == NONE else generator.card.metrics.train_seconds or 0.0
        return row(contender, outcome, seconds, self.against, solved)

    def _solutions(self, contender: Contender, outcome: Outcome) -> tuple[Tensor, float]:
        """The contender's inputs with numerical solutions, and the seconds that each took; a finish keeps its inputs."""
        if contender.trained == NONE:
            return self.against.truth.fields, 0.0
        key = (contender.trained, contender.method)
        if key not in self._solved:
            problem = self.against.problem
            began = time.perf_counter()
            name = contender.name if contender.finish is None else contender.trained
            solved, self.raised[name] = solutions(problem.pde, problem.grid, outcome.samples)
            self._solved[key] = solved, (time.perf_counter() - began) / len(solved)
        return self._solved[key]


def evaluate(settings: Settings, progress: Progress = lambda done, total, note: None) -> dict[str, Any]:
    """Measure every contender of a run and write its report.

    Args:
        settings: Those of the run.
        progress: Called with rows done, rows in all and the name of the next one.

    Returns:
        What report/metrics.json holds: `rows` and `meta`.

    Raises:
        UserError: When the run has no generators, or the test split has too few truths.
    """
    folder = run_folder(settings)
    e = settings.evaluate
    problem = settled(open_problem(settings.pde, settings.data), folder, Mesh(), print)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generators = open_generators(settings, problem, device)
    against = reference(settings, problem)
    asked = question(settings, generators["teacher"], against.truth)
    comparison = Comparison(asked, generators, against, e.batch)
    wanted = list(contenders(e, generators))
    rows = []
    for done, contender in enumerate(wanted):
        progress(done, len(wanted), contender.name)
        rows.append(comparison.measure(contender))
    progress(len(wanted), len(wanted), "")
    meta: dict[str, Any] = {"versions": versions(), "device": str(device), "threads": torch.get_num_threads()}
    meta["channels_shown"] = [problem.pde.channels[i].name for i in shown_channels(problem.pde)]
    meta |= {"input_points_raised": comparison.raised, "settings": folder.name}
    result = {"rows": rows, "meta": meta}
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    _keep_other(report, e.samples)
    write_atomic(report / "metrics.json", json_text(result, indent=1).encode())
    write_report(report / "index.html", result, problem, comparison.samples, against.truth)
    _write_cards(settings, rows, list(generators))
    return result


def _write_cards(settings: Settings, rows: list[dict[str, Any]], names: list[str]) -> None:
    """Put the row of each generator into its card; another run's card is not this one's to write."""
    folder = run_folder(settings)
    for name in names:
        if name == "teacher" and teacher_folder(settings, folder) != folder / name:
            continue
        wanted = f"teacher-heun-{max(settings.evaluate.teacher_steps)}" if name == "teacher" else name
        measured = next(r for r in rows if r["method"] == wanted)
        metrics = artifact.read_card(folder / name).metrics
        artifact.update_metrics(folder / name, replace(metrics, report=finite(measured)))


def _keep_other(report: Path, samples: int) -> None:
    """Put a report of another number of samples aside, under that number."""
    path = report / "metrics.json"
    try:
        had = json.loads(path.read_text())["rows"][0]["n_samples"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return
    if had != samples:
        for one in (path, report / "index.html"):
            if one.exists():
                one.rename(one.with_stem(f"{one.stem}-{had}"))


def report_path(settings: Settings) -> Path:
    """Where the report is."""
    return run_folder(settings) / "report" / "index.html"
