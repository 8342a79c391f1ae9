"""A frozen teacher and counters to one-step students: the second and last training loop. Knows nothing of Ray.

Every rank calls `train` with the same settings. Endpoints, where the objective takes them, come from the teacher on the fly,
through a bounded buffer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pidscale.config import Settings, to_flat
from pidscale.dataset.problem import open_problem
from pidscale.distill.endpoints.batch import Batches, open_supply
from pidscale.distill.endpoints.buffer import EndpointBuffer
from pidscale.distill.endpoints.rollout import open_rollout, open_teacher
from pidscale.distill.endpoints.supply import Supply
from pidscale.distill.endpoints.truncation import truncation, truncation_line
from pidscale.distill.objectives import open_objective
from pidscale.distill.objectives.base import Objective
from pidscale.distill.objectives.physics import Physics, weights_on
from pidscale.distill.results import observe, picture, publish_student
from pidscale.distill.scales import measure_scales
from pidscale.distill.students import Student, build_student, fork
from pidscale.engine.checkpoint import Checkpoint
from pidscale.engine.guard import Guard
from pidscale.engine.schedule import learning_rate, micro_plan
from pidscale.engine.sealer import Retention, Sealer
from pidscale.engine.spread import spread, window_for
from pidscale.generator.artifact import CONTROL
from pidscale.generator.generator import Generator
from pidscale.meter import rates
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.terms import MEASURES
from pidscale.run.bad_samples import settled
from pidscale.run.monitor import METRICS, Monitor, ResidualBounds, open_monitor
from pidscale.run.places import open_shelf
from pidscale.run.reporting import Reporter, Stopped


def open_batches(
    settings: Settings, teacher: Generator, window: Window, mesh: Mesh, supply: Supply | None = None
) -> Batches:
    """Return the batches of this rank.

    Args:
        settings: Those of the run.
        teacher: The frozen teacher.
        window: The rows of this rank.
        mesh: The ranks.
        supply: That of actors, if there are some.

    Returns:
        The batches.
    """
    d = settings.distill
    mine = mesh.slice(d.global_batch)
    rollout = open_rollout(settings, teacher, window.rows)
    supply = supply or open_supply(settings, rollout)
    seed = settings.run.seed
    buffer = EndpointBuffer(d.buffer_rows, d.reuse, d.global_batch, mine.start, mine.stop, seed, supply.get)
    return Batches(rollout, buffer, supply, d.takes_endpoints)


def train(
    settings: Settings, folder: Path, mesh: Mesh, reporter: Reporter, supply: Supply | None = None
) -> dict[str, Any]:
    """Distil, checkpoint and consolidate into folder/student (and folder/student-lambda0); resume where it stopped.

    Args:
        settings: Those of the run, the same on every rank.
        folder: That of the run.
        mesh: The ranks, which all call it.
        reporter: Hears of progress, and says when to stop.
        supply: Where endpoints come from, if that is nothing that the settings can open by themselves.

    Returns:
        The last training means by student.

    Raises:
        Stopped: A stop was asked for, and a checkpoint is written.
    """
    d = settings.distill
    problem = settled(open_problem(settings.pde, settings.data), folder, mesh, reporter.say, reporter.keep)
    teacher = open_teacher(settings, folder, problem, mesh.device)
    shelf = open_shelf(settings, folder, "distill")
    sealer = Sealer.open(shelf, mesh, settings.cluster.zero_stage, Retention(d.keep, d.keep_every), reporter.owner)
    found = sealer.newest(reporter.say)
    began = time.perf_counter()
    window = window_for(teacher.card.architecture, problem.grid, mesh.space)
    teacher = replace(teacher, denoiser=spread(teacher.denoiser, window))
    objective = open_objective(settings, teacher, window)
    batches = open_batches(settings, teacher, window, mesh, supply)
    scales = found.state["scales"] if found else measure_scales(settings, problem, batches, window, mesh)
    if not found:
        _say_truncation(batches, mesh, reporter)
    first = found.step if found else 0
    rolling = float(found.state["endpoint_seconds"]) if found else time.perf_counter() - began
    physics = Physics(problem.pde, window, teacher.normaliser, weights_on(d, problem.grid), scales, d.gradient_to)
    physics_from = int(d.physics_from * d.steps)
    rounds = [int(one.begins * d.steps) for one in objective.rounds(objective.own)[1:]]
    students = _students(settings, objective, physics, mesh, found)
    guard = Guard("distill", d, shelf, mesh, reporter.say, sealer.wait)
    guard.restore(found.state if found else {})
    monitor = open_monitor(settings, "distill", folder, problem, window, mesh, first, reporter.say)
    board, timer = monitor.board, monitor.timer
    logged: tuple[float, int] = (time.perf_counter(), first)
    last, pictured = _means(found, "means"), _means(found, "pictured")
    batches.start(first, d.steps)

    with closing(batches.supply), closing(board), closing(sealer):
        for step in range(first, d.steps):
            if step in rounds:  # the teacher of the next round is what the student has become
                for student in students:
                    student.next_round()
            if step == physics_from:  # from here on the student obeys the equation, and the control goes on without
                students += [fork(students[0], CONTROL)] if d.control else []
                students[0].obey(physics)
            began = time.perf_counter()
            batch = batches.at(step, timer.section)
            rolling += time.perf_counter() - began
            for student in students:
                began = time.perf_counter()
                student.gradients(batch, timer)
                with timer.section("optimiser"):
                    norms = student.update(learning_rate(d, step), step)
                student.seconds += time.perf_counter() - began
                for name, (norm, applied) in norms.items():
                    guard.step(name, step, norm, applied)
                board.scalars({f"{student.name}/gradient_norm": norms[student.name][0]}, step + 1)
            done = step + 1
            pictured |= observe(students, batches.rollout, monitor, done)
            if done % d.log_every == 0 or done == d.steps:
                now = time.perf_counter()
                last |= {student.name: means for student in students if (means := student.take_means())}
                course = {"train/lr": learning_rate(d, step), "train/skipped": float(guard.total)}
                _log(monitor, last, course, mesh.gather(timer.take()), now - logged[0], done - logged[1], batches, done)
                reporter.progress(
                    done, d.steps, _note(monitor.bounds, last.get("student", {}), pictured.get("student", {}))
                )
                logged = (now, done)
                sealer.check()
            due = done % d.checkpoint_every == 0
            stopping = (due or done % d.log_every == 0) and reporter.stopped(mesh, due)
            if due or stopping or done == d.steps:
                made = rolling + batches.supply.tally.hidden
                state = {"scales": scales, "endpoint_seconds": made, "means": last, "pictured": pictured}
                board.flush()
                _save(students, guard, sealer, done, state)
            if stopping and done < d.steps:
                sealer.wait()
                raise Stopped(f"distillation stopped at step {done} of {d.steps} with a checkpoint in {shelf}")

        sealer.finish()  # the last step is safe before what may fail: samples, their picture and the disk
        pictured = picture(students, batches.rollout, monitor, d.steps)
        guard.result(last, {name: norms["size"] for name, norms in pictured.items()})
        board.hparams(to_flat(settings), METRICS)
        sealer.meet()
        made = (teacher.card.metrics.train_seconds or 0.0) + rolling + batches.supply.tally.hidden
        for student in students:
            cost = {"train_seconds": made + student.seconds, "wait_share": timer.share("wait")}
            publish_student(student, teacher, folder, problem, scales, last.get(student.name, {}) | cost)
        sealer.meet()
    return last


def _say_truncation(batches: Batches, mesh: Mesh, reporter: Reporter) -> None:
    if not batches.endpoints:
        return
    line = truncation_line(truncation(batches.rollout, mesh), batches.rollout.steps)
    if mesh.first:
        reporter.say(line)


def _students(
    settings: Settings, objective: Objective, physics: Physics, mesh: Mesh, found: Checkpoint | None
) -> list[Student]:
    """The students that there are at a step, as a checkpoint has them; until physics begins, there is one, without it."""
    d = settings.distill
    plan = micro_plan(d.global_batch, d.micro_batch, mesh)
    begun = found is not None and found.step > int(d.physics_from * d.steps)
    students = [build_student("student", settings, objective, plan, mesh)]
    if found and begun:
        students[0].obey(physics, found.state.get("multipliers"))
    if d.control and begun:
        students.append(build_student(CONTROL, settings, objective, plan, mesh))
    if found:
        reader = found.reader()
        for student in students:
            student.restore(reader)
            student.seconds = float(found.state["student_seconds"][student.name])
    return students


def _means(found: Checkpoint | None, kind: str) -> dict[str, dict[str, float]]:
    """The last means by student as a checkpoint has them, in which null stands for a number that was not finite."""
    saved = found.state.get(kind, {}) if found else {}
    return {name: {k: math.nan if v is None else v for k, v in means.items()} for name, means in saved.items()}


def _note(bounds: ResidualBounds, means: Mapping[str, float], pictured: Mapping[str, float]) -> str:
    """The live line: the student's residual of training, and until that has one the residual of its samples in a picture."""
    return bounds.note(means.get("loss"), means.get("dual", pictured.get("dual")))


def _log(
    monitor: Monitor,
    means: dict[str, dict[str, float]],
    course: dict[str, float],
    spent: list[dict[str, float]],
    seconds: float,
    steps: int,
    batches: Batches,
    done: int,
) -> None:
    board = monitor.board
    for name, values in means.items():
        kinds = {k: f"{name}/residual_{k}" if k in MEASURES else f"{name}/loss_{k}" for k in values}
        board.scalars({kinds[k]: v for k, v in values.items()}, done)
    buffer = batches.buffer
    board.scalars(rates(spent, steps, seconds, buffer.batch) | course | monitor.bounds.lines("student/"), done)
    if batches.endpoints:
        made, busy = batches.supply.tally.take()
        made = made * buffer.batch // (buffer.last - buffer.first)  # of all groups
        work = busy + sum(value for name, value in spent[0].items() if name not in ("wait", "pictures"))
        shares = {"buffer/fresh_fraction": buffer.made / max(1, buffer.used)}
        board.scalars(shares | {"endpoints/per_second": made / seconds, "endpoints/work_share": busy / work}, done)


def _save(students: list[Student], guard: Guard, sealer: Sealer, step: int, state: dict[str, Any]) -> None:
    networks = [network for student in students for _, network in student.trained()]
    guard.weights(step, networks, [student.ema for student in students])
    slices = [one for student in students for one in student.slices()]
    seconds = {student.name: student.seconds for student in students}
    state |= {"skipped": guard.state(), "student_seconds": seconds}
    if students[0].multipliers is not None:
        state |= {"multipliers": students[0].multipliers.state()}
    sealer.save(step, state, slices)
