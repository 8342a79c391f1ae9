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
from pidscale.plain import printable
from pidscale.records.lock import at_work

PHASES = {"teacher": "teacher", "distill": "student"}
"""The phases of a run, and the folder of the generator that each makes."""

FIGURES = {"solution_error": "solution error", "residual_dual": "residual dual", "swd_excess": "SWD excess"}
NONE = "-"
REPORT = Path("report") / "index.html"


@dataclass(frozen=True)
class RunState:
    """What the files of a run say.

    Attributes:
        folder: The folder of the run.
        equation: Its equation and number of points, such as `darcy 32`.
        phases: How far each phase is, by the name of the phase.
        figures: Figures of the student by their names in a report; empty before there are any.
        worked_on: The process that works on the run; empty if none is known.
    """

    folder: Path
    equation: str
    phases: dict[str, str]
    figures: dict[str, float]
    worked_on: str

    @property
    def is_reported(self) -> bool:
        """Whether the run has a report."""
        return (self.folder / REPORT).exists()


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
    equation = f"{pde.get('name', '?')} {pde.get('points') or ''}".strip() if pde else "config.json is damaged"
    phases = {phase: _phase(folder, phase, settings) for phase in PHASES}
    return RunState(folder, equation, phases, _figures(folder), at_work(folder))


def describe_runs(root: Path) -> list[str]:
    """Describe the runs below a folder.

    Args:
        root: The folder.

    Returns:
        The lines of a table, and where reports and curves are.

    Raises:
        UserError: When there is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the folder of your runs (run.folder)")
    states = [run_state(folder) for folder in find_runs(root)]
    if not states:
        raise UserError(f"{root}: holds no run; name the folder of your runs (run.folder)")
    heads = ["run", "equation", *PHASES.values(), *FIGURES.values(), "working on it"]
    rows = [
        [
            str(state.folder.relative_to(root)) if state.folder != root else state.folder.name,
            state.equation,
            *state.phases.values(),
            *(f"{state.figures[key]:.3g}" if key in state.figures else NONE for key in FIGURES),
            state.worked_on or NONE,
        ]
        for state in states
    ]
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


def _phase(folder: Path, phase: str, settings: Mapping[str, Any]) -> str:
    """Return how far a phase is, such as `step 150 of 200`."""
    path = folder / f"{phase}.json"
    if not path.exists():
        return "given" if phase == "teacher" and (settings.get("distill") or {}).get("teacher") else NONE
    record = _read(path)
    signature = record.get("signature")
    if not isinstance(signature, dict) or not isinstance(record.get("finished"), bool):
        return f"{path.name} is damaged"
    steps = signature.get(f"{phase}.steps", "?")
    if record["finished"]:
        return f"{steps} steps" if (folder / PHASES[phase] / CARD).exists() else f"{steps} steps, but it is gone"
    step = newest_step(folder / "checkpoints" / phase)
    return f"checkpoint {step} of {steps}" if step is not None else f"no checkpoint of {steps} steps yet"


def _figures(folder: Path) -> dict[str, float]:
    """Return the figures of the student: of the report, or of the end of its training."""
    rows = _read(folder / "report" / "metrics.json").get("rows")
    named = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    student = next((row for row in named if row.get("method") == PHASES["distill"]), None)
    if student is None:
        student = _read(folder / PHASES["distill"] / CARD).get("metrics")
        student = student.get("report", student) if isinstance(student, dict) else {}
    found = student if isinstance(student, dict) else {}
    return {key: float(found[key]) for key in FIGURES if isinstance(found.get(key), (int, float))}
