"""Shards to a trained teacher: the first of the two training loops. Knows nothing of Ray and nothing of students.

Every rank calls `train` with the same settings; the loss of a global batch is the sum of the ranks' shares.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import Settings, to_flat, to_plain
from pidscale.dataset.problem import open_problem, read_params
from pidscale.diffusion.denoiser import conditioned
from pidscale.diffusion.solvers import integrate
from pidscale.engine.consolidate import publish
from pidscale.engine.guard import Guard, shown
from pidscale.engine.schedule import learning_rate
from pidscale.engine.sealer import Retention, Sealer
from pidscale.figures.fields import picture_row
from pidscale.generator.card import Card, Kind, Metrics, Provenance
from pidscale.generator.regression import predicted
from pidscale.meter import Board, StepTimer, rates
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import Samples, solution_mask
from pidscale.pde.parameters import condition, draw_params
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import NORMS
from pidscale.plain import json_text
from pidscale.records.feed import Feed
from pidscale.records.read import ShardSet
from pidscale.run.bad_samples import settled
from pidscale.run.places import open_shelf
from pidscale.run.reporting import Reporter, Stopped
from pidscale.teacher.start import Start, open_start
from pidscale.teacher.training import LossMeans, Teacher, build, describe, noise_for


def train(settings: Settings, folder: Path, mesh: Mesh, reporter: Reporter) -> dict[str, Any]:
    """Train, checkpoint and consolidate into folder/teacher; resume where folder/checkpoints/teacher says.

    Data or a start that do not fit, and a run that diverges, are a UserError.

    Args:
        settings: Those of the run, the same on every rank.
        folder: That of the run.
        mesh: The ranks, which all call it.
        reporter: Hears of progress, and says when to stop.

    Returns:
        The final metrics.

    Raises:
        Stopped: A stop was asked for, and a checkpoint is written.
    """
    t = settings.teacher
    problem = settled(open_problem(settings.pde, settings.data), folder, mesh, reporter.say, reporter.keep)
    began_from = open_start(settings, problem)
    problem = problem if began_from is None else replace(problem, normaliser=began_from.normaliser)
    shards = problem.shards("train")
    shelf = open_shelf(settings, folder, "teacher")
    sealer = Sealer.open(shelf, mesh, settings.cluster.zero_stage, Retention(t.keep, t.keep_every), reporter.owner)
    found = sealer.newest(reporter.say)
    noise = noise_for(settings, problem, shards, mesh, began_from, found.state["noise"] if found else None)
    teacher = build(settings, problem, noise, mesh, began_from)
    first = found.step if found else 0
    seconds = found.state["train_seconds"] if found else began_from.seconds if began_from else 0.0
    if found:
        teacher.restore(found.reader())
    elif began_from is not None and mesh.first:
        reporter.say(began_from.line)
    feed = _open_feed(teacher, shards, first)
    guard = Guard("teacher", t, shelf, mesh, reporter.say, sealer.wait)
    guard.restore(found.state if found else {})
    board = Board(folder / "tb" / "teacher" if mesh.first else None, first, reporter.say)
    board.text("config", json_text(to_plain(settings), indent=1))
    timer = StepTimer(torch.cuda.synchronize if mesh.device.type == "cuda" else None)
    start = time.perf_counter()
    logged = (start, first)
    losses = LossMeans(teacher)
    means: dict[str, float] = {}
    mean: float | None = found.state["loss"] if found else None

    with closing(feed), closing(board), closing(sealer):
        for step in range(first, t.steps):
            with timer.section("wait"):
                batch = feed.batch(step)
            with timer.section("data"):
                x = problem.normaliser.encode(batch.fields_BCYX.to(mesh.device))
                own = condition(problem.pde, batch.params_BP).to(mesh.device)
            parts = teacher.gradients(step, x, own, timer)
            with timer.section("optimiser"):
                norm, applied = teacher.zero.step(learning_rate(t, step))
                if applied:
                    teacher.ema.update(step)
                    losses.add(parts)
            guard.step("teacher", step, norm, applied)
            done = step + 1
            if done % t.log_every == 0 or done == t.steps:
                means = losses.take() or means
                mean = math.fsum(means.values()) if means else mean
                now = time.perf_counter()
                speeds = rates(mesh.gather(timer.take()), done - logged[1], now - logged[0], t.global_batch)
                scalars = {
                    "train/lr": learning_rate(t, step),
                    "train/gradient_norm": norm,
                    "train/skipped": guard.total,
                }
                board.scalars(scalars | speeds | {f"loss/{name}": value for name, value in means.items()}, done)
                reporter.progress(done, t.steps, f"loss {shown(mean)}")
                logged = (now, done)
                sealer.check()
            spent = seconds + time.perf_counter() - start
            if done % t.evaluate_every == 0 and done < t.steps:
                evaluate(teacher, board, done)
                sealer.meet()
            due = done % t.checkpoint_every == 0
            stopping = (due or done % t.log_every == 0) and reporter.stopped(mesh, due)
            if due or stopping or done == t.steps:
                guard.weights(done, [teacher.zero], [teacher.ema])
                board.flush()
                state = {"train_seconds": spent, "skipped": guard.state(), "loss": mean, "noise": noise.describe()}
                sealer.save(done, state, teacher.slices())
            if stopping and done < t.steps:
                sealer.wait()
                raise Stopped(f"teacher stopped at step {done} of {t.steps} with a checkpoint in {shelf}")

        sealer.finish()  # the last step is safe before what may fail: samples, their report and the disk
        spent = seconds + time.perf_counter() - start
        results, size = evaluate(teacher, board, t.steps)
        guard.result({"loss": mean, **results}, {"teacher": size})
        results |= {"train_seconds": spent, "wait_share": timer.share("wait")}
        finals = {f"residual/{k}": results[f"residual_{k}"] for k in NORMS}
        board.hparams(to_flat(settings), finals)
        sealer.meet()
        _publish(teacher, folder, results, began_from)
        sealer.meet()
    return results


def _open_feed(teacher: Teacher, shards: ShardSet, first: int) -> Feed:
    """The batches of this rank from a step on, with their parameters."""
    s, mesh = teacher.settings, teacher.mesh
    return Feed(
        shards,
        s.run.seed,
        s.teacher.global_batch,
        mesh.data_rank,
        mesh.data,
        s.data.prefetch,
        first,
        teacher.window.rows,
        threads=s.data.threads,
        pinned=mesh.device.type == "cuda",
        params=partial(read_params, shards, teacher.problem),
    )


def _publish(teacher: Teacher, folder: Path, results: dict[str, Any], began_from: Start | None) -> None:
    weights = teacher.ema.full_weights(teacher.mesh.first)
    problem = teacher.problem
    s = teacher.settings
    if not teacher.mesh.first:
        return
    provenance = Provenance(
        data_hash=problem.manifest.data_hash,
        seed=s.run.seed,
        steps=s.teacher.steps,
        objective=s.teacher.own.name,
        start=None if began_from is None else began_from.provenance,
    )
    card = Card.of(
        teacher.objective.kind,
        problem.pde,
        grid=problem.grid,
        normaliser=problem.normaliser,
        architecture=describe(s, problem),
        noise=teacher.noise,
        provenance=provenance,
        metrics=Metrics.from_plain(results),
    )
    publish(folder / "teacher", weights, card)


def evaluate(teacher: Teacher, board: Board, step: int) -> tuple[dict[str, Any], float]:
    """Measure the residuals of samples of the averaged teacher, split over the ranks, and draw a few of them.

    Args:
        teacher: The teacher; all ranks call it.
        board: Takes curves and picture.
        step: How many steps are finished.

    Returns:
        The residuals by name, and the root mean square of the samples beside that of data, in the units of the model.
    """
    s, problem, mesh = teacher.settings, teacher.problem, teacher.mesh
    denoiser = teacher.averaged()
    mine = mesh.slice(s.teacher.evaluate_samples)
    counters = range(mine.start, mine.stop)
    predicts = teacher.objective.kind is Kind.REGRESSION
    make = _predicted if predicts else _sampled
    x, params = make(teacher, denoiser, counters)
    physical = Samples(problem.normaliser.decode(x), params)
    squares = residual_shares(problem.pde, teacher.window, *physical)
    sums = mesh.sum(torch.stack([squares[k].sum() for k in NORMS]))
    l2, dual, boundary = (float(v) for v in (sums / s.teacher.evaluate_samples).sqrt())
    values = s.teacher.evaluate_samples * math.prod(problem.shape)
    size = float(mesh.sum(x.double().square().sum()) / values) ** 0.5 / teacher.noise.sigma_data
    floor = problem.manifest.truth_residual["train"]
    board.scalars({"residual/l2": l2, "residual/dual": dual, "residual/boundary": boundary}, step)
    board.scalars({"residual/floor_l2": floor["l2"], "residual/floor_dual": floor["dual"]}, step)
    if mesh.data_rank == 0 and math.isfinite(size + l2):
        truth = problem.held_out(4, teacher.window.rows).on(mesh.device)
        board.image("fields", picture_row(problem.pde, teacher.window, {"truth": truth, "teacher": physical}), step)
    return {"residual_l2": l2, "residual_dual": dual, "residual_boundary": boundary}, size


def _sampled(teacher: Teacher, denoiser: PreconditionedNetwork, counters: range) -> tuple[Tensor, Tensor]:
    """Return samples of a network in units of the model, the rows of this rank, and their parameters."""
    s, problem, mesh = teacher.settings, teacher.problem, teacher.mesh
    eps = seeds.normal(s.run.seed, "teacher/evaluate", counters, problem.shape, teacher.window.rows, mesh.device)
    params = draw_params(problem.pde, s.run.seed, "teacher/evaluate", counters)
    wanted = condition(problem.pde, params).to(mesh.device)
    levels = teacher.noise.levels(s.teacher.evaluate_steps)
    with torch.no_grad():
        parts = zip(eps.split(s.teacher.micro_batch), wanted.split(s.teacher.micro_batch), strict=True)
        x = torch.cat([integrate(conditioned(denoiser, own), part, levels, "heun") for part, own in parts])
    return x, params


def _predicted(teacher: Teacher, denoiser: PreconditionedNetwork, counters: range) -> tuple[Tensor, Tensor]:
    """Return held-out fields with a regression's solutions, as `_sampled` does."""
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
