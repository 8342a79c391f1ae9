"""What a distillation shows and leaves: pictures of its samples, and the folders of its students. Knows no steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

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
    """Draw truth, teacher and students from the same noise, with their residuals, on the first rank.

    What is not finite is not drawn.

    Args:
        students: The students, whose averages make the samples; all ranks call it.
        rollout: Noise and the teacher's endpoints.
        board: Takes the picture.
        problem: Holds truths that no training saw.
        step: How many steps are finished.

    Returns:
        The root mean square of each student's samples beside that of data, on every rank.
    """
    averages = [(student, student.averaged()) for student in students]
    mesh, window = students[0].mesh, students[0].window
    sizes: dict[str, float] = {}
    if mesh.data_rank > 0:
        return dict(mesh.broadcast(sizes))
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
    """Write the folder of a student, and its teacher's within it where that is asked for. The first rank does.

    A disk without room, and a weight or a number of the card that is not finite, are a UserError.

    Args:
        student: The student, whose average is published; all ranks call it.
        teacher: Its teacher, that of the first round.
        folder: That of the run.
        problem: Equation, grid and provenance of the data.
        scales: What each term of the residual was divided by.
        metrics: The last means of the training, and its cost.
    """
    weights = student.ema.full_weights()
    if not student.mesh.first:
        return
    objective = student.objective
    settings = student.settings
    d = settings.distill
    endpoints = {"solver": d.solver, "steps": d.solver_steps, "reuse": d.reuse} if d.takes_endpoints else {}
    further = {
        "endpoints": endpoints,
        "weights": objective.physics.weights if objective.physics else {},
        "gradient_to": d.gradient_to,
        **{"huber": 0.0, "power": 0.0},  # of objectives that have none
        **{key: value for key, value in to_plain(d.own).items() if key != "name"},
    }
    provenance = Provenance(
        data_hash=problem.manifest.data_hash,
        seed=settings.run.seed,
        steps=d.steps,
        teacher=teacher.card.weights_sha256,
        objective=d.own.name,
        start=d.start,
        scales=scales,
        residual_floor=problem.manifest.truth_residual["train"].get("l2"),
        further=further,
    )
    card = Card.of(
        Kind.STUDENT,
        problem.pde,
        grid=problem.grid,
        normaliser=teacher.normaliser,
        architecture=teacher.card.architecture,
        noise=teacher.noise,
        constraints=tuple(d.constraints),
        network_level=objective.network_level,
        provenance=provenance,
        metrics=Metrics.from_plain(metrics),
    )
    publish(folder / student.name, weights, card)
    if d.carry_teacher:
        publish(folder / student.name / TEACHER, teacher.denoiser.state_dict(), teacher.card)
