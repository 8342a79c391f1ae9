"""What a distillation shows and leaves: pictures of its samples, and the folders of its students. Knows no steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from pidscale.dataset.problem import Problem
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.students import Arm
from pidscale.engine.consolidate import publish
from pidscale.figures.fields import picture_row
from pidscale.generator.artifact import TEACHER
from pidscale.generator.card import Card, Kind, Metrics, Provenance
from pidscale.meter import Board
from pidscale.pde.base import Samples
from pidscale.pde.parameters import condition


def picture(arms: list[Arm], rollout: Rollout, board: Board, problem: Problem, step: int) -> dict[str, float]:
    """Truth, teacher and students from the same noise, and their residuals; drawn by the first rank.

    Returns, on every rank, the root mean square of each arm's samples beside that of data; what is not finite is not drawn.
    """
    plain, window = {arm.name: (arm, arm.averaged()) for arm in arms}, arms[0].objective.window
    sizes: dict[str, float] = {}
    if arms[0].mesh.data_rank > 0:
        return dict(arms[0].mesh.broadcast(sizes))
    endpoints = rollout.endpoints(torch.arange(rollout.chunk) + 2**60)
    eps, params = rollout.eps(endpoints.counters[:4]), endpoints.params_BP[:4]
    decode = rollout.teacher.normaliser.decode
    sets = {
        "truth": problem.held_out(4, window.rows).on(eps.device),
        "teacher": Samples(decode(endpoints.fields_BCYX[:4]), params),
    }
    told = condition(problem.pde, params).to(eps.device)
    with torch.no_grad():
        for name, (arm, denoiser) in plain.items():
            x = arm.objective.sample(denoiser, eps, told)
            sets[name] = Samples(decode(x), params)
            mean = float(window.total(x.double().square().sum())) / (len(eps) * arm.objective.points)
            sizes[name] = mean**0.5 / rollout.teacher.noise.sigma_data
    if all(math.isfinite(size) for size in sizes.values()):
        board.image("fields", picture_row(problem.pde, window, sets), step)
    return dict(arms[0].mesh.broadcast(sizes))


def publish_arm(
    arm: Arm, folder: Path, problem: Problem, scales: Mapping[str, float], metrics: Mapping[str, float]
) -> None:
    """Write the folder of an arm, and its teacher's within it where that is asked for. The first rank does."""
    weights = arm.ema.full_weights()
    if not arm.mesh.first:
        return
    objective, settings = arm.objective, arm.settings
    teacher, d = objective.teacher, settings.distill
    provenance = Provenance(
        data_hash=problem.manifest.data_hash,
        seed=settings.run.seed,
        steps=d.steps,
        teacher=teacher.card.weights_sha256,
        objective=d.objective,
        start=d.start,
        scales=scales,
        residual_floor=problem.manifest.truth_residual["train"].get("l2"),
        further={
            "endpoints": {"solver": d.solver, "steps": d.solver_steps, "reuse": d.reuse} if d.pairs else {},
            "weights": objective.physics.weights if objective.physics else {},
            "gradient_to": d.gradient_to,
            "huber": d.huber,
            "power": d.power,
        },
    )
    card = Card.of(
        Kind.STUDENT,
        problem.pde,
        grid=problem.grid,
        normaliser=teacher.normaliser,
        architecture=teacher.card.architecture,
        noise=teacher.noise,
        constraints=tuple(d.constraints),
        network_level=objective.told,
        provenance=provenance,
        metrics=Metrics.from_plain(metrics),
    )
    publish(folder / arm.name, weights, card)
    if d.carry_teacher:
        publish(folder / arm.name / TEACHER, teacher.denoiser.state_dict(), teacher.card)
