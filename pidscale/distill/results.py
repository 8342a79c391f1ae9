"""Results of a distillation: pictures of samples, and the folders of the students. Knows no steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pidscale.config import to_plain
from pidscale.dataset.problem import Problem
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.students import Student
from pidscale.engine.consolidate import publish
from pidscale.generator.artifact import TEACHER
from pidscale.generator.card import Card, Kind, Metrics, Provenance
from pidscale.generator.generator import Generator
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.pde.base import Samples
from pidscale.pde.parameters import condition
from pidscale.run.monitor import Monitor
from pidscale.run.pictures import PICTURED, Pictures

FIRST_COUNTER = 2**60  # counter of the first sample of a picture, which no step uses


def observe(students: list[Student], rollout: Rollout, monitor: Monitor, done: int) -> dict[str, dict[str, float]]:
    """Draw a picture where one is due within the run. All ranks call it.

    Args:
        students: See `picture`.
        rollout: See `picture`.
        monitor: Says whether a picture is due, and takes it.
        done: Number of finished steps.

    Returns:
        What `picture` returns; nothing where none is due.
    """
    return picture(students, rollout, monitor, done) if monitor.due(done) else {}


def picture(students: list[Student], rollout: Rollout, monitor: Monitor, step: int) -> dict[str, dict[str, float]]:
    """Draw samples of teacher and students from the same noise, the same at every step. All ranks call it.

    One all-gather a parameter, and one broadcast of a few numbers.

    Args:
        students: Students whose averaged weights generate the samples.
        rollout: Teacher and solver, for noise and endpoints.
        monitor: Takes the samples, and the time.
        step: Number of finished steps.

    Returns:
        By student, on every rank: root mean square residuals of its samples by norm and, as `size`, the root mean square of
        the samples relative to that of the data.
    """
    mesh = students[0].mesh
    with monitor.timer.section("pictures"):
        if mesh.data_rank > 0:
            for student in students:
                student.ema.full_weights(kept=False)
            return dict(mesh.broadcast({}))
        found = _drawn([(student, student.averaged()) for student in students], rollout, monitor.pictures, step)
        return dict(mesh.broadcast(found))


def _drawn(
    averages: list[tuple[Student, PreconditionedNetwork]], rollout: Rollout, pictures: Pictures, step: int
) -> dict[str, dict[str, float]]:
    """Draw samples of teacher and averaged students, and return what `picture` does."""
    counters = torch.arange(PICTURED) + FIRST_COUNTER
    eps = rollout.eps(counters)
    params = rollout.params(counters)
    own = condition(rollout.teacher.pde, params).to(eps.device)
    decode = rollout.teacher.normaliser.decode
    if not pictures.fixed:
        pictures.fix_truths()
        few = replace(rollout, chunk=min(rollout.chunk, PICTURED))
        pictures.fix(TEACHER, Samples(decode(few.endpoints(counters).fields_BCYX), params))
    sets: dict[str, Samples] = {}
    sizes: dict[str, float] = {}
    for student, denoiser in averages:
        with torch.no_grad():
            parts = zip(eps.split(student.plan.micro), own.split(student.plan.micro), strict=True)
            x = torch.cat([student.objective.sample(denoiser, part, some) for part, some in parts])
        sets[student.name] = Samples(decode(x), params)
        mean = float(student.window.total(x.double().square().sum())) / (len(eps) * student.objective.points)
        sizes[student.name] = mean**0.5 / rollout.teacher.noise.sigma_data
    found = pictures.draw(sets, step)
    curves = {f"{name}/pictured_{norm}": value for name, norms in found.items() for norm, value in norms.items()}
    curves |= {f"student/teacher_{norm}": value for norm, value in pictures.residuals[TEACHER].items()}
    pictures.board.scalars(curves, step)
    return {name: {**norms, "size": sizes[name]} for name, norms in found.items()}


def publish_student(
    student: Student,
    teacher: Generator,
    folder: Path,
    problem: Problem,
    scales: Mapping[str, float],
    metrics: Mapping[str, float],
) -> None:
    """Write the folder of a student, with the teacher inside it if `carry_teacher` is set. All ranks call it.

    The first rank writes. Raises a UserError if the disk is full, or if a weight or a number of the card is not finite.

    Args:
        student: Student whose averaged weights are published.
        teacher: Teacher of the first round.
        folder: Folder of the run.
        problem: Equation, grid and provenance of the data.
        scales: Scale of each term of the residual.
        metrics: Last mean values of the training, and its cost.
    """
    weights = student.ema.full_weights(student.mesh.first)
    if not student.mesh.first:
        return
    objective = student.objective
    settings = student.settings
    d = settings.distill
    provenance = Provenance(
        data_hash=problem.manifest.data_hash,
        seed=settings.run.seed,
        steps=d.steps,
        teacher=teacher.card.weights_sha256,
        objective=d.own.name,
        start=d.start,
        scales=scales,
        residual_floor=problem.manifest.truth_residual["train"].get("l2"),
        further=_recipe(student),
    )
    card = Card.of(
        Kind.STUDENT,
        problem.pde,
        grid=problem.grid,
        normaliser=teacher.normaliser,
        architecture=teacher.card.architecture,
        noise=teacher.noise,
        constraints=tuple(d.constraints),
        head=d.head,
        network_level=objective.network_level,
        call_levels=objective.call_levels,
        provenance=provenance,
        metrics=Metrics.from_plain(metrics),
    )
    publish(folder / student.name, weights, card)
    if d.carry_teacher:
        publish(folder / student.name / TEACHER, teacher.denoiser.state_dict(), teacher.card)


def _recipe(student: Student) -> dict[str, Any]:
    """Return what the card records of the endpoints and of the loss, which no code reads."""
    d = student.settings.distill
    physics = student.objective.physics
    return {
        "endpoints": {"solver": d.solver, "steps": d.solver_steps, "reuse": d.reuse} if d.takes_endpoints else {},
        "weights": physics.weights if physics else {},
        "gradient_to": d.gradient_to,
        **{"huber": 0.0, "power": 0.0},  # for objectives without these settings
        **{key: value for key, value in to_plain(d.own).items() if key != "name"},
    }
