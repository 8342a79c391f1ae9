"""The runs below a folder in a table: how far each phase is, what the student reaches, where to look. Reads files only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidscale.config import UserError
from pidscale.engine.checkpoint import newest_step
from pidscale.generator.artifact import CARD
from pidscale.plain import json_text, printable
from pidscale.records.lock import at_work

PHASES = {"teacher": "teacher", "distill": "student"}
"""The phases of a run, and the folder of the generator that each makes."""

FIGURES = {"solution_error": "solution error", "residual_dual": "residual dual", "swd_excess": "SWD excess"}
NONE = "-"
REPORT = Path("report") / "index.html"


@dataclass(frozen=True)
class PhaseState:
    """How far a phase is.

    Attributes:
        state: `none` (not begun), `given` (a teacher from elsewhere), `begun` (no checkpoint yet), `checkpoint`, `finished`,
            `gone` (finished, but its generator is missing) or `damaged` (its record cannot be read).
        step: Finished steps that its files hold; None if that is not known.
        steps: Steps of the whole phase; None if that is not known.
    """

    state: str
    step: int | None = None
    steps: int | None = None

    def text(self, phase: str) -> str:
        """Return the state in words, such as `checkpoint 150 of 200`."""
        steps = "?" if self.steps is None else self.steps
        return {
            "none": NONE,
            "given": "given",
            "damaged": f"{phase}.json is damaged",
            "finished": f"{steps} steps",
            "gone": f"{steps} steps, but it is gone",
            "checkpoint": f"checkpoint {self.step} of {steps}",
            "begun": f"no checkpoint of {steps} steps yet",
        }[self.state]


@dataclass(frozen=True)
class RunState:
    """What the files of a run say.

    Attributes:
        folder: The folder of the run.
        equation: Its equation; None if its config.json is damaged.
        points: Number of points a side; None if the settings leave it to the shard set, or are damaged.
        phases: How far each phase is, by the name of the phase.
        figures: Figures of the student by their names in a report; empty before there are any.
        worked_on: The process that works on the run; empty if none is known.
    """

    folder: Path
    equation: str | None
    points: int | None
    phases: dict[str, PhaseState]
    figures: dict[str, float]
    worked_on: str

    @property
    def is_reported(self) -> bool:
        """Whether the run has a report."""
        return (self.folder / REPORT).exists()

    def plain(self, root: Path) -> dict[str, Any]:
        """Return the state as plain JSON values. Its keys are an interface: docs/command_line.md lists them."""
        folder = self.folder.absolute()
        return {
            "name": self._name(root),
            "folder": str(folder),
            "equation": self.equation,
            "points": self.points,
            **{phase: {"state": own.state, "step": own.step, "steps": own.steps} for phase, own in self.phases.items()},
            **{key: self.figures.get(key) for key in FIGURES},
            "working": self.worked_on or None,
            "report": str(folder / REPORT) if self.is_reported else None,
            "curves": str(folder / "tb") if (folder / "tb").is_dir() else None,
        }

    def row(self, root: Path) -> list[str]:
        """Return the cells of the state in a table."""
        equation = f"{self.equation} {self.points or ''}".strip() if self.equation else "config.json is damaged"
        return [
            self._name(root),
            equation,
            *(state.text(phase) for phase, state in self.phases.items()),
            *(f"{self.figures[key]:.3g}" if key in self.figures else NONE for key in FIGURES),
            self.worked_on or NONE,
        ]

    def _name(self, root: Path) -> str:
        return str(self.folder.relative_to(root)) if self.folder != root else root.resolve().name


def find_runs(root: Path) -> Iterator[Path]:
    """Yield the folders of runs, by name: below a folder, below the comparisons in it, and the folder itself if it is a run.

    Args:
        root: The folder.

    Yields:
        Folders that a phase has begun in.
    """
    if _is_run(root):
        yield root
        return
    for folder in _folders(root):
        yield from [folder] if _is_run(folder) else [inner for inner in _folders(folder) if _is_run(inner)]


def run_state(folder: Path) -> RunState:
    """Read how far a run is. A file that is damaged is named in place of what it would say.

    Args:
        folder: The folder of the run.

    Returns:
        The state.
    """
    settings = _read(folder / "config.json")
    pde = settings.get("pde") if isinstance(settings.get("pde"), dict) else None
    equation = str(pde.get("name", "?")) if pde else None
    phases = {phase: _phase(folder, phase, settings) for phase in PHASES}
    return RunState(folder, equation, _whole((pde or {}).get("points")), phases, _figures(folder), at_work(folder))


def read_runs(root: Path) -> list[RunState]:
    """Read how far the runs below a folder are.

    Args:
        root: The folder.

    Returns:
        The states, by name.

    Raises:
        UserError: When there is no such folder, or no run in it.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "no such folder"
        raise UserError(
            f"{root}: {what}; name the folder of your runs (run.folder), or start one: `pidscale demo` or `pidscale train`"
        )
    states = [run_state(folder) for folder in find_runs(root)]
    if not states:
        raise UserError(f"{root}: holds no run; name the folder of your runs (run.folder)")
    return states


def runs_json(root: Path) -> str:
    """Return the runs below a folder as JSON, an object with the key `runs`. Raises UserError as `read_runs` does."""
    return json_text({"runs": [state.plain(root) for state in read_runs(root)]}, indent=1)


def describe_runs(root: Path) -> list[str]:
    """Return the lines of a table of the runs below a folder, and where reports and curves are; UserError as `read_runs`."""
    states = read_runs(root)
    heads = ["run", "equation", *PHASES.values(), *FIGURES.values(), "working on it"]
    rows = [state.row(root) for state in states]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    reports = [f"report: {state.folder / REPORT}" for state in states if state.is_reported]
    return [printable(line.rstrip()) for line in [*lines, *reports, f"curves: tensorboard --logdir {root}"]]


def _is_run(folder: Path) -> bool:
    return any((folder / f"{phase}.json").is_file() for phase in PHASES)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _read(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file, nothing if it is missing or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(value: object) -> int | None:
    """A value of a file if it is a whole number above 0, as steps and points are."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else None


def _phase(folder: Path, phase: str, settings: Mapping[str, Any]) -> PhaseState:
    """Return how far a phase is."""
    path = folder / f"{phase}.json"
    if not path.exists():
        distill = settings.get("distill")
        is_given = phase == "teacher" and isinstance(distill, dict) and bool(distill.get("teacher"))
        return PhaseState("given" if is_given else "none")
    record = _read(path)
    signature = record.get("signature")
    if not isinstance(signature, dict) or not isinstance(record.get("finished"), bool):
        return PhaseState("damaged")
    steps = _whole(signature.get(f"{phase}.steps"))
    if record["finished"]:
        return PhaseState("finished" if (folder / PHASES[phase] / CARD).exists() else "gone", steps, steps)
    step = newest_step(folder / "checkpoints" / phase)
    return PhaseState("begun", 0, steps) if step is None else PhaseState("checkpoint", step, steps)


def _figures(folder: Path) -> dict[str, float]:
    """Return the figures of the student: of the report, or of the end of its training."""
    rows = _read(folder / "report" / "metrics.json").get("rows")
    named = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    student = next((row for row in named if row.get("method") == PHASES["distill"]), None)
    if student is None:
        student = _read(folder / PHASES["distill"] / CARD).get("metrics")
        student = student.get("report", student) if isinstance(student, dict) else {}
    found = student if isinstance(student, dict) else {}
    return {key: figure for key in FIGURES if (figure := _figure(found.get(key))) is not None}


def _figure(value: object) -> float | None:
    """A value of a file if it is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
