"""What shows how a run goes: its board, when its pictures are drawn, and what a residual is compared with.

Shared by both loops. Knows no networks and no objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pidscale.config import Settings, TrainSettings, to_plain
from pidscale.dataset.problem import Problem
from pidscale.engine.guard import shown
from pidscale.generator.artifact import CONTROL
from pidscale.meter import Board, StepTimer
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import Samples
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import NORMS
from pidscale.plain import json_text
from pidscale.run.pictures import Pictures

Say = Callable[[str], None]

NULL_SAMPLES = 16  # truths whose solution is replaced by a null solution

_STUDENTS = f"(student|{CONTROL})"
LAYOUT = {
    "residual": {
        **{f"teacher, {norm}": [f"residual/(pictured_|floor_|null_)?{norm}$"] for norm in NORMS},
        **{f"students, {norm}": [f"{_STUDENTS}/(residual|pictured|teacher|floor|null)_{norm}$"] for norm in NORMS},
    },
    "loss": {
        "teacher": ["loss/"],
        "students": [f"{_STUDENTS}/loss_"],
        "norm of the gradient": ["train/gradient_norm$", f"{_STUDENTS}/gradient_norm$"],
        "skipped steps": ["train/skipped$"],
    },
    "learning rate": {"learning rate": ["train/lr$"]},
    "time": {
        "seconds a step": ["time/(?!wait_share$)"],
        "seconds a step, slowest worker": ["slowest/(?!wait_share$|.*_rank$)"],
        "share of waiting": ["(time|slowest)/wait_share$"],
        "fields a second": ["train/fields_per_second$", "endpoints/per_second$"],
        "endpoints": ["buffer/fresh_fraction$", "endpoints/work_share$"],
    },
}
"""Which curves the tab "Custom Scalars" shows together, for both phases: TensorBoard merges what equals, and no more."""

METRICS = (
    *(f"residual/{norm}" for norm in NORMS),
    *(f"student/{kind}_{norm}" for kind in ("residual", "pictured") for norm in NORMS),
    "student/loss_loss",
)
"""Curves whose last values are the metrics of a run in the table of hyperparameters; the same for both phases."""


@dataclass(frozen=True)
class ResidualBounds:
    """What a residual is compared with: on a truth it is at its floor, with a null solution it has its value of no use.

    Attributes:
        floor: Root mean square of the truths, by norm.
        null: Root mean square of truths with a null solution in place of theirs, by norm.
    """

    floor: Mapping[str, float]
    null: Mapping[str, float]

    def lines(self, prefix: str) -> dict[str, float]:
        """Return both as scalars; written at several steps they are lines beside a curve."""
        floors = {f"{prefix}floor_{norm}": self.floor[norm] for norm in NORMS if norm in self.floor}
        return floors | {f"{prefix}null_{norm}": value for norm, value in self.null.items()}

    def note(self, loss: float | None, dual: float | None) -> str:
        """Return a loss and a residual, in the dual norm, as a progress line shows them; None where there is none yet."""
        text = f"loss {shown(loss)}"
        if dual is None:
            return text
        value = f"{dual:.2g}" if math.isfinite(dual) else shown(dual)
        return f"{text}, residual {value} (truth {self.floor.get('dual', 0.0):.2g}, null {self.null['dual']:.2g})"


def null_residuals(
    problem: Problem, truths: Samples, window: Window, mesh: Mesh, extra: Collection[str] = ()
) -> dict[str, float]:
    """Return the root mean square residuals of truths with a null solution in place of theirs.

    All ranks call it with the same truths. One all-reduce of 8 bytes a measure.

    Args:
        problem: The equation.
        truths: Truths in physical units, the rows of this rank.
        window: The rows of this rank.
        mesh: The mesh of ranks.
        extra: Names of further measures, of `terms.EXTRA_MEASURES`.

    Returns:
        Residuals by name, the same on every rank.
    """
    names = (*NORMS, *extra)
    fields = problem.pde.trivial(truths.fields, window)
    squares = residual_shares(problem.pde, window, fields, truths.params, extra)
    sums = mesh.sum(torch.stack([squares[name].double().sum() for name in names])) / (mesh.data * len(fields))
    return dict(zip(names, sums.sqrt().tolist(), strict=True))


def residual_bounds(problem: Problem, window: Window, mesh: Mesh) -> ResidualBounds:
    """Return the bounds of a run. All ranks call it; arguments and messages as for `null_residuals`."""
    truths = problem.samples("train", NULL_SAMPLES, window.rows, whole=False).on(mesh.device)
    return ResidualBounds(problem.manifest.truth_residual["train"], null_residuals(problem, truths, window, mesh))


@dataclass(frozen=True)
class Monitor:
    """What one attempt of a phase shows.

    Attributes:
        board: Curves and pictures for TensorBoard.
        pictures: Pictures of samples.
        bounds: What residuals are compared with.
        phase: Settings of the phase.
        timer: Times the pictures, as the section `pictures` of a step.
    """

    board: Board
    pictures: Pictures
    bounds: ResidualBounds
    phase: TrainSettings
    timer: StepTimer

    def due(self, done: int) -> bool:
        """Return whether a picture is due within the run: evenly over it, whatever attempt a step belongs to."""
        count, steps = self.phase.pictures, self.phase.steps
        return done < steps and done * count // steps > (done - 1) * count // steps


def open_monitor(
    settings: Settings, phase: str, folder: Path, problem: Problem, window: Window, mesh: Mesh, first: int, say: Say
) -> Monitor:
    """Open the board of a phase, on the first rank, and measure the bounds. All ranks call it.

    Args:
        settings: Settings of the run.
        phase: `teacher` or `distill`.
        folder: Folder of the run.
        problem: Equation and data.
        window: Rows of this rank.
        mesh: The mesh of ranks.
        first: Number of steps that are finished.
        say: Hears of a file that cannot be written.

    Returns:
        The monitor; its board has the settings and the layout of the curves.
    """
    own: TrainSettings = getattr(settings, phase)
    board = Board(folder / "tb" / phase if mesh.first else None, first, say)
    if first == own.steps:
        board.keep(first)
    board.text("config", json_text(to_plain(settings), indent=1), first)
    board.layout(LAYOUT)
    timer = StepTimer(_synchronise(phase) if mesh.device.type == "cuda" else None)
    pictures = Pictures(problem, window, mesh.device, board)
    return Monitor(board, pictures, residual_bounds(problem, window, mesh), own, timer)


def _synchronise(phase: str) -> Callable[[], object]:
    """Return what waits for a GPU; in a distillation for this stream alone, as the teacher may be at work on another."""
    return torch.cuda.synchronize if phase == "teacher" else torch.cuda.current_stream().synchronize
