"""Shards to a trained teacher: the first of the two training loops. Knows nothing of Ray and nothing of students.

Every rank calls `train` with the same settings; the loss of a global batch is the sum of the ranks' shares.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pidscale.config import Settings, to_flat
from pidscale.dataset.problem import open_problem, read_params
from pidscale.engine.consolidate import publish
from pidscale.engine.guard import Guard
from pidscale.engine.schedule import learning_rate
from pidscale.engine.sealer import Retention, Sealer
from pidscale.generator.card import Card, Metrics, Provenance
from pidscale.meter import rates
from pidscale.parallel.mesh import Mesh
from pidscale.pde.parameters import condition
from pidscale.records.feed import Feed
from pidscale.records.read import ShardSet
from pidscale.run.bad_samples import settled
from pidscale.run.monitor import METRICS, open_monitor
from pidscale.run.places import open_shelf
from pidscale.run.reporting import Reporter, Stopped
from pidscale.teacher.evaluation import evaluate, observe, picture
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
    monitor = open_monitor(settings, "teacher", folder, problem, teacher.window, mesh, first, reporter.say)
    board, timer = monitor.board, monitor.timer
    start = time.perf_counter()
    logged = (start, first)
    losses = LossMeans(teacher)
    means: dict[str, float] = {}
    mean: float | None = found.state["loss"] if found else None
    residual: float | None = found.state.get("residual") if found else None  # in the dual norm

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
            seen = observe(teacher, monitor, done)
            residual = residual if seen is None else seen
            if done % t.log_every == 0 or done == t.steps:
                means = losses.take() or means
                mean = math.fsum(means.values()) if means else mean
                now = time.perf_counter()
                speeds = rates(mesh.gather(timer.take()), done - logged[1], now - logged[0], t.global_batch)
                course = {"lr": learning_rate(t, step), "gradient_norm": norm, "skipped": guard.total}
                curves = _named("train", course) | _named("loss", means) | monitor.bounds.lines("residual/")
                board.scalars(speeds | curves, done)
                reporter.progress(done, t.steps, monitor.bounds.note(mean, residual))
                logged = (now, done)
                sealer.check()
            spent = seconds + time.perf_counter() - start
            due = done % t.checkpoint_every == 0
            stopping = (due or done % t.log_every == 0) and reporter.stopped(mesh, due)
            if due or stopping or done == t.steps:
                guard.weights(done, [teacher.zero], [teacher.ema])
                board.flush()
                state = {"train_seconds": spent, "skipped": guard.state(), "loss": mean, "residual": residual}
                state["noise"] = noise.describe()
                sealer.save(done, state, teacher.slices())
            if stopping and done < t.steps:
                sealer.wait()
                raise Stopped(f"teacher stopped at step {done} of {t.steps} with a checkpoint in {shelf}")

        sealer.finish()  # the last step is safe before what may fail: samples, their report and the disk
        spent = seconds + time.perf_counter() - start
        results, size = evaluate(teacher, board, t.steps)
        guard.result({"loss": mean, **results}, {"teacher": size})
        picture(teacher, monitor.pictures, t.steps)
        board.hparams(to_flat(settings), METRICS)
        reporter.progress(t.steps, t.steps, monitor.bounds.note(mean, results["residual_dual"]))
        results |= {"train_seconds": spent, "wait_share": timer.share("wait")}
        sealer.meet()
        _publish(teacher, folder, results, began_from)
        sealer.meet()
    return results


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values as scalars of a group."""
    return {f"{group}/{name}": value for name, value in values.items()}


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
