"""Samples of a teacher in training: their residuals, and pictures of a few of them. Knows no files and no other steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.diffusion.denoiser import conditioned
from pidscale.diffusion.solvers import integrate
from pidscale.generator.card import Kind
from pidscale.generator.regression import predicted
from pidscale.meter import Board
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.pde.base import Samples, solution_mask
from pidscale.pde.parameters import condition, draw_params
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import NORMS
from pidscale.run.monitor import Monitor
from pidscale.run.pictures import PICTURED, Pictures
from pidscale.teacher.training import Teacher


def evaluate(teacher: Teacher, board: Board, step: int) -> tuple[dict[str, Any], float]:
    """Measure the residuals of samples of the averaged teacher, split over the ranks.

    Args:
        teacher: The teacher; all ranks call it.
        board: Takes the curves.
        step: How many steps are finished.

    Returns:
        The residuals by name, and the root mean square of the samples beside that of data, in the units of the model.
    """
    s, problem, mesh = teacher.settings, teacher.problem, teacher.mesh
    denoiser = teacher.averaged()
    mine = mesh.slice(s.teacher.evaluate_samples)
    x, params = _made(teacher, denoiser, range(mine.start, mine.stop))
    squares = residual_shares(problem.pde, teacher.window, problem.normaliser.decode(x), params)
    sums = mesh.sum(torch.stack([squares[k].sum() for k in NORMS]))
    l2, dual, boundary = (float(v) for v in (sums / s.teacher.evaluate_samples).sqrt())
    values = s.teacher.evaluate_samples * math.prod(problem.shape)
    size = float(mesh.sum(x.double().square().sum()) / values) ** 0.5 / teacher.noise.sigma_data
    board.scalars({"residual/l2": l2, "residual/dual": dual, "residual/boundary": boundary}, step)
    return {"residual_l2": l2, "residual_dual": dual, "residual_boundary": boundary}, size


def observe(teacher: Teacher, monitor: Monitor, done: int) -> float | None:
    """Draw a picture and evaluate, where that is due within the run. All ranks call it.

    Args:
        teacher: The teacher.
        monitor: Takes picture and curves.
        done: How many steps are finished.

    Returns:
        Root mean square residual of the samples in the dual norm, the same on every rank; None where nothing is due.
    """
    residual: float | None = None
    if monitor.due(done):
        with monitor.timer.section("pictures"):
            residual = picture(teacher, monitor.pictures, done)
    t = teacher.settings.teacher
    if done % t.evaluate_every == 0 and done < t.steps:
        residual = evaluate(teacher, monitor.board, done)[0]["residual_dual"]
    return residual


def picture(teacher: Teacher, pictures: Pictures, step: int) -> float:
    """Draw a few samples of the averaged teacher, from the same noise at every step. All ranks call it.

    One all-gather a parameter, and one broadcast of a number.

    Args:
        teacher: The teacher.
        pictures: Takes the samples.
        step: How many steps are finished.

    Returns:
        Root mean square of their residuals in the dual norm, on every rank.
    """
    if teacher.mesh.data_rank > 0:
        teacher.ema.full_weights(kept=False)
        return float(teacher.mesh.broadcast(None))
    x, params = _made(teacher, teacher.averaged(), range(PICTURED), "dpm2m")  # half the calls of Heun's method
    samples = Samples(teacher.problem.normaliser.decode(x), params)
    found = pictures.draw({"teacher": samples}, step)["teacher"]
    pictures.board.scalars({f"residual/pictured_{norm}": value for norm, value in found.items()}, step)
    return float(teacher.mesh.broadcast(found["dual"]))


def _made(
    teacher: Teacher, denoiser: PreconditionedNetwork, counters: range, solver: str = "heun"
) -> tuple[Tensor, Tensor]:
    """Return fields of a network in units of the model, the rows of this rank, and their parameters."""
    if teacher.objective.kind is Kind.REGRESSION:
        return _predicted(teacher, denoiser, counters)
    s, problem, mesh = teacher.settings, teacher.problem, teacher.mesh
    eps = seeds.normal(s.run.seed, "teacher/evaluate", counters, problem.shape, teacher.window.rows, mesh.device)
    params = draw_params(problem.pde, s.run.seed, "teacher/evaluate", counters)
    wanted = condition(problem.pde, params).to(mesh.device)
    levels = teacher.noise.levels(s.teacher.evaluate_steps)
    with torch.no_grad():
        parts = zip(eps.split(s.teacher.micro_batch), wanted.split(s.teacher.micro_batch), strict=True)
        x = torch.cat([integrate(conditioned(denoiser, own), part, levels, solver) for part, own in parts])
    return x, params


def _predicted(teacher: Teacher, denoiser: PreconditionedNetwork, counters: range) -> tuple[Tensor, Tensor]:
    """Return held-out fields with a regression's solutions, as `_made` does."""
    problem, mesh = teacher.problem, teacher.mesh
    truths = problem.held_out(counters.stop, teacher.window.rows)
    some = torch.tensor([counter % len(truths.fields) for counter in counters])
    x = problem.normaliser.encode(truths.fields[some].to(mesh.device))
    params = truths.params[some]
    unknown = teacher.window.crop(solution_mask(problem.pde, problem.grid)).to(mesh.device)
    wanted = condition(problem.pde, params).to(mesh.device)
    size = teacher.settings.teacher.micro_batch
    with torch.no_grad():
        parts = zip(x.split(size), wanted.split(size), strict=True)
        level = teacher.noise.sigma_data
        found = torch.cat([predicted(conditioned(denoiser, own), part, unknown, level) for part, own in parts])
    return torch.where(unknown, found, x), params
