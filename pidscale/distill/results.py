"""Results of a distillation: pictures of samples, and the folders of the students. Knows no steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pidscale.config import to_plain
from pidscale.dataset.problem import Problem
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.students import Student
from pidscale.engine.consolidate import publish
from pidscale.figures.fields import picture_row
from pidscale.generator.artifact import TEACHER
from pidscale.generator.card import Card, Kind, Metrics, Provenance
from pidscale.generator.generator import Generator
from pidscale.meter import Board
from pidscale.pde.base import Samples
from pidscale.pde.parameters import condition


def picture(students: list[Student], rollout: Rollout, board: Board, problem: Problem, step: int) -> dict[str, float]:
    """Draw truths, and samples of teacher and students from the same noise, with their residuals. All ranks call it.

    The first rank draws the picture, unless samples of a student are not finite.

    Args:
        students: Students whose averaged weights generate the samples.
        rollout: Teacher and solver, for noise and endpoints.
        board: Board that the picture is added to.
        problem: The problem, for held-out truths.
        step: Number of finished steps.

    Returns:
        Root mean square of each student's samples relative to that of the data, on every rank.
    """
    mesh, window = students[0].mesh, students[0].window
    sizes: dict[str, float] = {}
    if mesh.data_rank > 0:
        for student in students:
            student.ema.full_weights(kept=False)
        return dict(mesh.broadcast(sizes))
    averages = [(student, student.averaged()) for student in students]
    endpoints = rollout.endpoints(torch.arange(rollout.chunk) + 2**60)
    eps = rollout.eps(endpoints.counters[:4])
    params = endpoints.params_BP[:4]
    decode = rollout.teacher.normaliser.decode
    sets = {
        "truth": problem.held_out(4, window.rows).on(eps.device),
        "teacher": Samples(decode(endpoints.fields_BCYX[:4]), params),
    }
    own = condition(problem.pde, params).to(eps.device)
    with torch.no_grad():
        for student, denoiser in averages:
            x = student.objective.sample(denoiser, eps, own)
            sets[student.name] = Samples(decode(x), params)
            mean = float(window.total(x.double().square().sum())) / (len(eps) * student.objective.points)
            sizes[student.name] = mean**0.5 / rollout.teacher.noise.sigma_data
    if all(math.isfinite(size) for size in sizes.values()):
        board.image("fields", picture_row(problem.pde, window, sets), step)
    return dict(mesh.broadcast(sizes))


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
