"""Shards to a trained teacher: the first of the two training loops. Knows nothing of Ray and nothing of students.

Every rank calls `train` with the same settings; the loss of a global batch is the sum of the ranks' shares.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pidscale import seeds
from pidscale.config import Settings, to_flat, to_plain
from pidscale.dataset.problem import Problem, open_problem, read_params
from pidscale.diffusion.denoiser import conditioned
from pidscale.diffusion.noise import Noise, schedule_for, strongest_mode
from pidscale.diffusion.objective import denoising_errors
from pidscale.diffusion.solvers import integrate
from pidscale.engine import checkpoint
from pidscale.engine.consolidate import publish
from pidscale.engine.ema import Ema
from pidscale.engine.guard import Guard, shown
from pidscale.engine.schedule import MicroPlan, learning_rate, micro_plan
from pidscale.engine.spread import spread, window_for
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.figures.fields import picture_row
from pidscale.generator.card import Card, Kind, Metrics, Provenance
from pidscale.meter import Board, StepTimer, rates
from pidscale.models import build_denoiser
from pidscale.models.precondition import PreconditionedNetwork
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import Samples
from pidscale.pde.parameters import condition, draw_params
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import NORMS
from pidscale.plain import json_text
from pidscale.records.feed import Feed
from pidscale.records.read import ShardSet
from pidscale.run.bad_samples import settled
from pidscale.run.preflight import model_description
from pidscale.run.reporting import Reporter, Stopped
from pidscale.teacher.start import Start, open_start

MODE_SAMPLES = 1024  # training fields that the strongest mode is measured on,
MODE_VALUES = 2**25  # fewer of large ones, so that they do not fill the memory,
LEAST_MODE_SAMPLES = 32  # but never less than these


@dataclass
class Teacher:
    """A teacher in training: its engine and average, and all that a step needs. window: the rows of this rank."""

    settings: Settings
    problem: Problem
    noise: Noise
    zero: Zero
    ema: Ema
    window: Window
    plan: MicroPlan
    mesh: Mesh

    def noised(self, step: int, x_BCYX: Tensor) -> tuple[Tensor, Tensor]:
        """Noise, of this rank's rows, and levels of its samples at a step, by sample counter."""
        batch, seed = self.settings.teacher.global_batch, self.settings.run.seed
        mine = self.mesh.slice(batch)
        counters = torch.arange(step * batch + mine.start, step * batch + mine.stop)
        eps = seeds.normal(seed, "teacher/noise", counters, self.problem.shape, self.window.rows, self.mesh.device)
        level = seeds.normal(seed, "teacher/level", counters, (1, 1, 1), device=self.mesh.device).flatten()
        return eps, self.noise.training_level(level)

    def gradients(self, step: int, x_BCYX: Tensor, condition_BP: Tensor, timer: StepTimer) -> Tensor:
        """All micro-steps of a global batch from this rank's clean normalised rows; returns its share of the loss."""
        with timer.section("data"):
            eps, sigma = self.noised(step, x_BCYX)
        total, points = torch.zeros((), device=self.mesh.device), math.prod(self.problem.shape)
        with timer.section("teacher"):
            for index, weight in zip(self.plan.indices, self.plan.weights, strict=True):
                denoiser = conditioned(self.zero, condition_BP[index])
                errors = denoising_errors(denoiser, self.noise, x_BCYX[index], sigma[index], eps[index], points)
                share = (weight * errors).sum() / self.settings.teacher.global_batch
                self.zero.backward(share)
                total = total + share.detach()
        return total


def build(settings: Settings, problem: Problem, noise: Noise, mesh: Mesh, began_from: Start | None = None) -> Teacher:
    """A teacher with new weights, or those of another that it goes on from, the same on every rank."""
    torch.manual_seed(settings.run.seed)
    window, s = rows_of(settings, problem, mesh), settings.model
    model = build_denoiser(describe(settings, problem), noise.sigma_data, s.precision, s.recompute)
    if began_from is not None:
        model.load_state_dict(began_from.weights())
    model = spread(model, window).to(mesh.device)
    plan = micro_plan(settings.teacher.global_batch, settings.teacher.micro_batch, mesh)
    stage, t = settings.cluster.zero_stage, settings.teacher
    zero = Zero(model, ZeroSettings(stage, plan.micro, plan.accumulation, t.clip, settings.cluster.deepspeed), mesh)
    return Teacher(settings, problem, noise, zero, Ema(zero.module, stage, mesh, t.ema), window, plan, mesh)


def describe(settings: Settings, problem: Problem) -> dict[str, Any]:
    """The full description of the network."""
    return model_description(settings, problem.shape[0], len(problem.pde.varying))


def rows_of(settings: Settings, problem: Problem, mesh: Mesh) -> Window:
    """The window of this rank's rows."""
    return window_for(describe(settings, problem), problem.grid, mesh.space)


def noise_for(
    settings: Settings, problem: Problem, shards: ShardSet, mesh: Mesh, began_from: Start | None = None
) -> Noise:
    """The noise schedule that this data needs, or that of a teacher to go on from, but for what the settings say.

    Raises ValueError for one that would lose the strongest mode of the data.
    """
    window = rows_of(settings, problem, mesh)
    most = max(LEAST_MODE_SAMPLES, min(MODE_SAMPLES, MODE_VALUES // math.prod(problem.shape)))
    fields = torch.from_numpy(shards.read(range(min(most, len(shards))), window.rows))
    t = settings.teacher
    mode = strongest_mode(problem.normaliser.encode(fields.to(mesh.device)), total=window.total)
    own = {"sigma_max": t.sigma_max, "p_mean": t.p_mean, "p_std": t.p_std}
    if began_from is not None:
        own = {key: getattr(began_from.card.noise, key, None) if value is None else value for key, value in own.items()}
    return schedule_for(t.noise, mode, min(problem.grid.shape), **own)


def train(settings: Settings, folder: Path, mesh: Mesh, reporter: Reporter) -> dict[str, Any]:
    """Train, checkpoint and consolidate into folder/teacher; resume where folder/checkpoints/teacher says.

    Returns the final metrics. Raises Stopped after a checkpoint when a stop was asked for.
    """
    problem, t = settled(open_problem(settings.pde, settings.data), folder, mesh, reporter.say), settings.teacher
    began_from = open_start(settings, problem)
    problem = problem if began_from is None else replace(problem, normaliser=began_from.normaliser)
    shards = problem.shards("train")
    noise = noise_for(settings, problem, shards, mesh, began_from)
    teacher = build(settings, problem, noise, mesh, began_from)
    root = folder / "checkpoints" / "teacher"
    found = checkpoint.newest(root, settings.cluster.zero_stage, mesh, reporter.say)
    if mesh.first:
        checkpoint.sweep(root)
    first, seconds = (found.step, float(found.state["train_seconds"])) if found else (0, 0.0)
    if began_from is not None and not found:
        seconds = began_from.seconds
        if mesh.first:
            reporter.say(began_from.line)
    if found:
        teacher.zero.load(found.folder, "zero")
        teacher.ema.restore(load_file(found.folder / "ema.safetensors"))
    feed = Feed(
        shards,
        settings.run.seed,
        t.global_batch,
        mesh.data_rank,
        mesh.data,
        settings.data.prefetch,
        first,
        teacher.window.rows,
        threads=settings.data.threads,
        pinned=mesh.device.type == "cuda",
    )
    guard = Guard("teacher", t, root, mesh, reporter.say)
    guard.restore(found.state if found else {})
    board = Board(folder / "tb" / "teacher" if mesh.first else None, first, reporter.say)
    board.text("config", json_text(to_plain(settings), indent=1))
    timer = StepTimer(torch.cuda.synchronize if mesh.device.type == "cuda" else None)
    start, logged, window, mean = (
        time.perf_counter(),
        (time.perf_counter(), first),
        torch.zeros(2, device=mesh.device),
        None,
    )

    with closing(feed), closing(board):
        for step in range(first, t.steps):
            with timer.section("wait"):
                fields = feed.batch(step)
            with timer.section("data"):
                x = problem.normaliser.encode(fields.to(mesh.device))
                params = read_params(shards, problem, feed.ids(step))
                told = condition(problem.pde, params).to(mesh.device)
            loss = teacher.gradients(step, x, told, timer)
            with timer.section("optimiser"):
                norm, applied = teacher.zero.step(learning_rate(t, step))
                if applied:
                    teacher.ema.update(step)
            guard.step("teacher", step, norm, applied)
            if applied:
                window += torch.stack([loss, torch.ones_like(loss)])
            done = step + 1
            if done % t.log_every == 0 or done == t.steps:
                mean = float(mesh.sum(window[0])) / float(window[1]) if window[1] > 0 else mean
                now = time.perf_counter()
                speeds = rates(timer.take(), done - logged[1], now - logged[0], t.global_batch)
                scalars = {
                    "train/lr": learning_rate(t, step),
                    "train/gradient_norm": norm,
                    "train/skipped": guard.total,
                }
                board.scalars(scalars | speeds | ({} if mean is None else {"loss/denoising": mean}), done)
                reporter.progress(done, t.steps, f"loss {shown(mean)}")
                logged, window = (now, done), torch.zeros_like(window)
            spent = seconds + time.perf_counter() - start
            if done % t.evaluate_every == 0 and done < t.steps:
                evaluate(teacher, board, done)
            stopping = done % t.log_every == 0 and reporter.stopped(mesh)
            if (done % t.checkpoint_every == 0 or stopping) and done < t.steps:
                guard.weights(done, [teacher.zero], [teacher.ema])
                board.flush()
                _save(teacher, root, done, {"train_seconds": spent, "skipped": guard.state()})
            if stopping and done < t.steps:
                raise Stopped(f"teacher stopped at step {done} of {t.steps} with a checkpoint in {root}")

        spent = seconds + time.perf_counter() - start
        guard.weights(t.steps, [teacher.zero], [teacher.ema])
        results, size = evaluate(teacher, board, t.steps)
        guard.result({"loss": mean, **results}, {"teacher": size})
        results |= {"train_seconds": spent, "wait_share": timer.share("wait")}
        finals = {f"residual/{k}": results[f"residual_{k}"] for k in NORMS}
        board.hparams(to_flat(settings), finals)
    _publish(teacher, folder, results, began_from)
    if mesh.first:
        checkpoint.sweep(root)
    mesh.barrier()
    return results


def _publish(teacher: Teacher, folder: Path, results: dict[str, Any], began_from: Start | None) -> None:
    weights, problem, s = teacher.ema.full_weights(), teacher.problem, teacher.settings
    if not teacher.mesh.first:
        return
    provenance = Provenance(
        data_hash=problem.manifest.data_hash,
        seed=s.run.seed,
        steps=s.teacher.steps,
        start=None if began_from is None else began_from.provenance,
    )
    card = Card.of(
        Kind.TEACHER,
        problem.pde,
        grid=problem.grid,
        normaliser=problem.normaliser,
        architecture=describe(s, problem),
        noise=teacher.noise,
        provenance=provenance,
        metrics=Metrics.from_plain(results),
    )
    publish(folder / "teacher", weights, card)


def _save(teacher: Teacher, root: Path, step: int, state: dict[str, Any]) -> None:
    average, mesh, s = teacher.ema.full_weights(), teacher.mesh, teacher.settings
    needed = teacher.zero.bytes + sum(one.nbytes for one in average.values())

    def write(folder: Path) -> None:
        teacher.zero.save(folder, "zero")
        if mesh.first:
            save_file(average, folder / "ema.safetensors")

    checkpoint.save(root, step, state, s.cluster.zero_stage, mesh, s.teacher.keep, write, needed)


def averaged(teacher: Teacher) -> PreconditionedNetwork:
    """A copy of the network with the averaged weights, for the rows of this rank, on its device."""
    s = teacher.settings
    plain = build_denoiser(describe(s, teacher.problem), teacher.noise.sigma_data, s.model.precision)
    plain.load_state_dict(teacher.ema.full_weights())
    return spread(plain, teacher.window).to(teacher.mesh.device).eval()


def evaluate(teacher: Teacher, board: Board, step: int) -> tuple[dict[str, Any], float]:
    """Residuals of samples of the averaged teacher, split over the ranks; a picture of a few of them.

    The second value is the root mean square of the samples beside that of data, in the units of the model.
    """
    s, problem, mesh = teacher.settings, teacher.problem, teacher.mesh
    denoiser = averaged(teacher)
    mine = mesh.slice(s.teacher.evaluate_samples)
    counters = range(mine.start, mine.stop)
    eps = seeds.normal(s.run.seed, "teacher/evaluate", counters, problem.shape, teacher.window.rows, mesh.device)
    params = draw_params(problem.pde, s.run.seed, "teacher/evaluate", counters)
    told, levels = condition(problem.pde, params).to(mesh.device), teacher.noise.levels(s.teacher.evaluate_steps)
    with torch.no_grad():
        parts = zip(eps.split(s.teacher.micro_batch), told.split(s.teacher.micro_batch), strict=True)
        x = torch.cat([integrate(conditioned(denoiser, own), part, levels, "heun") for part, own in parts])
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
