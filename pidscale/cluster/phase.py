"""Phases of a run from its settings: the driver checks what it can before anything starts, then workers run the loops.

Knows of Ray only how to join it. Of models and equations it knows the checks that a driver can make; everything else of them
it passes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pidscale.cluster.fit import Driver, Stop, find_room, fit
from pidscale.cluster.joining import connect
from pidscale.config import Settings, UserError
from pidscale.dataset.problem import Problem, open_problem
from pidscale.distill.endpoints.rollout import open_rollout, open_teacher
from pidscale.distill.objectives.physics import active_weights, extra_measures
from pidscale.distill.preflight import announcement
from pidscale.engine.spread import check_split
from pidscale.generator.artifact import read_card
from pidscale.generator.generator import Teacher
from pidscale.limits import check
from pidscale.paths import absolute, check_folder, refuse_job_package
from pidscale.pde.constraints import check_constraints
from pidscale.pde.head import check_head
from pidscale.pde.residuals import check_measures
from pidscale.run.memory import MemoryPlan, memory_plan
from pidscale.run.phases import begin, due, finish, hold_run
from pidscale.run.places import home_of, is_made, made_by, run_place
from pidscale.run.preflight import check_model, model_description, plan_lines, plan_text, precision_remark
from pidscale.teacher.preflight import check_objective
from pidscale.teacher.start import open_start


@dataclass(frozen=True)
class _Checked:
    """A phase whose settings passed all checks that a driver can make.

    Attributes:
        settings: Settings with absolute paths.
        folder: Folder of the run.
        problem: Equation and data.
        teacher: The teacher of a student.
        inputs: Hashes of what the phase reads.
        description: Architecture of the network.
        parameters: Number of its weights.
    """

    settings: Settings
    folder: Path
    problem: Problem
    teacher: Teacher | None
    inputs: dict[str, str]
    description: dict[str, Any]
    parameters: int


def run_phase(phase: str, settings: Settings, stop: Stop | None = None) -> Path:
    """Check everything that a driver can check, then run a phase unless it is finished already.

    A UserError is raised before any worker starts if the driver finds a mistake, later if a worker does.

    Args:
        phase: `teacher` or `distill`.
        settings: The settings of the run.
        stop: Whether the user asked to stop, for a caller that runs several phases.

    Returns:
        The folder of the run.
    """
    checked = _checked(phase, settings)
    settings, folder, inputs = checked.settings, checked.folder, checked.inputs
    if not due(phase, settings, inputs):
        is_made(phase, settings)  # fetched, if it lies in a store
        print(f"{phase}: finished already in {run_place(settings)}")
        return folder

    shape = checked.problem.shape

    def plan_of(settings: Settings) -> MemoryPlan:
        return memory_plan(settings, checked.description, shape[1:], phase, checked.parameters)

    lines = [plan_text(checked.description, settings.cluster, checked.parameters), plan_lines(plan_of(settings))]
    if (remark := precision_remark(settings)) is not None:
        lines.append(remark)
    if checked.teacher is not None:
        lines[0] = f"the teacher's network, {lines[0]}"
        lines += announcement(settings, open_rollout(settings, checked.teacher), shape)
    for line in lines:
        print(f"{phase}: {line}", flush=True)
    with hold_run(settings) as owner:
        connect()
        with (stop or Stop()).listening() as stop:
            workers = find_room(phase, settings, stop)
            if begin(phase, settings, inputs):
                print(f"{phase}: tensorboard --logdir {folder / 'tb'}", flush=True)
                fit(phase, settings, folder, Driver(owner, stop, plan_of), workers)
                _finish(phase, settings, folder, inputs)
    return folder


def is_finished(phase: str, settings: Settings) -> bool:
    """Check everything that a driver can check, and return whether a phase has no work left.

    A UserError is raised if the driver finds a mistake.

    Args:
        phase: `teacher` or `distill`.
        settings: The settings of the run.

    Returns:
        Whether `run_phase` would leave everything as it is.
    """
    checked = _checked(phase, settings)
    return not due(phase, checked.settings, checked.inputs)


def _checked(phase: str, settings: Settings) -> _Checked:
    """Check everything that a driver can check; UserError if something is wrong."""
    settings, folder = _opened(phase, settings)
    problem = open_problem(settings.pde, settings.data)
    inputs = {"data.path (its data_hash)": problem.manifest.data_hash}
    teacher = None
    if phase == "teacher":
        check_objective(settings)
        description = model_description(settings, problem.shape[0], len(problem.pde.varying))
        start = open_start(settings, problem)
        if start is not None:
            inputs["teacher.start (its weights)"] = start.card.weights_sha256
    else:
        teacher = open_teacher(settings, folder, problem, None)
        card = teacher.card
        description = dict(card.architecture)  # a student has its teacher's network, whatever the model section says
        check_constraints(problem.pde, settings.distill.constraints)
        check_head(problem.pde, settings.distill.head, "distill.head")
        check_measures(problem.pde, problem.grid, extra_measures(active_weights(settings.distill)))
        inputs["distill.teacher (its weights)"] = card.weights_sha256
    parameters = check_model(settings, description, problem.grid.shape)
    check_split(description, problem.pde, problem.grid, settings.cluster.space)
    return _Checked(settings, folder, problem, teacher, inputs, description, parameters)


def _opened(phase: str, settings: Settings) -> tuple[Settings, Path]:
    """Return the checked settings of a run with absolute paths, and its folder, or its copy that equals what a store has."""
    settings = absolute(settings)
    check(settings, (phase,))
    if phase == "distill":
        settings = replace(settings, distill=settings.distill.complete)
    refuse_job_package(settings.run.folder, "run.folder")
    home = home_of(settings)
    check_folder(home.folder, home.setting)
    home.pull()
    return settings, home.folder


def _finish(phase: str, settings: Settings, folder: Path, inputs: dict[str, str]) -> None:
    """Mark a phase finished, and print its costs; UserError if it was stopped."""
    if not is_made(phase, settings):
        place = run_place(settings)
        raise UserError(f"{place}: {phase} was stopped; the same command goes on from its last checkpoint")
    finish(phase, settings, inputs)
    spent = read_card(made_by(phase, folder)).metrics
    source = "data" if phase == "teacher" else "endpoints of the teacher"
    print(
        f"{phase}: {spent.train_seconds or 0:.0f} s in all; "
        f"{spent.wait_share or 0:.1%} of the steps' time waited for {source}"
    )
