"""A frozen teacher and counters to one-step students: the second and last training loop. Knows nothing of Ray.

Every rank calls `train` with the same settings. Endpoints, where the objective takes them, come from the teacher on the fly,
through a bounded ring.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pidscale.config import Settings, UserError, to_flat, to_plain
from pidscale.dataset.problem import Problem, open_problem
from pidscale.distill.endpoints.batch import Batches, open_supply
from pidscale.distill.endpoints.buffer import Ring
from pidscale.distill.endpoints.rollout import open_rollout, open_teacher
from pidscale.distill.endpoints.supply import Supply
from pidscale.distill.endpoints.truncation import truncation, truncation_line
from pidscale.distill.objectives.base import Objective
from pidscale.distill.objectives.dmd import Matching
from pidscale.distill.objectives.physics import Physics, active_weights, extra_measures, frozen_scales
from pidscale.distill.objectives.pid import Pid
from pidscale.distill.objectives.piddm import Piddm
from pidscale.distill.results import picture, publish_arm
from pidscale.distill.students import Arm, build_arm, fork
from pidscale.engine import checkpoint
from pidscale.engine.guard import Guard, shown
from pidscale.engine.schedule import learning_rate, micro_plan
from pidscale.engine.spread import spread, window_for
from pidscale.generator.artifact import CONTROL
from pidscale.generator.generator import Generator
from pidscale.meter import Board, StepTimer, rates
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.constraints import check_constraints
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import MEASURES, NORMS
from pidscale.plain import json_text, not_finite
from pidscale.run.bad_samples import settled
from pidscale.run.reporting import Reporter, Stopped


def measure_scales(
    settings: Settings, problem: Problem, batches: Batches, window: Window, mesh: Mesh
) -> dict[str, float]:
    """s_k^2 by term: mean squared residuals of the teacher's own samples, measured once, split over the ranks."""
    d = settings.distill
    rows, extra = d.scale_samples // d.global_batch, extra_measures(active_weights(d))
    terms = (*NORMS, *extra)
    fields, params = (torch.cat(parts) for parts in zip(*batches.scaling(rows, d), strict=True))
    decode = batches.rollout.teacher.normaliser.decode  # its units, which another set of its data need not have
    shares = residual_shares(problem.pde, window, decode(fields), params, extra)
    sums = mesh.sum(torch.stack([shares[k].double().sum() for k in terms])) / (rows * d.global_batch)
    truth = problem.samples("train", 64, window.rows).on(mesh.device)
    null = residual_shares(problem.pde, window, problem.pde.trivial(truth.fields, window), truth.params, extra)
    nulls = mesh.sum(torch.stack([null[k].double().sum() for k in terms])) / (mesh.data * len(truth.fields))
    scales = frozen_scales(
        dict(zip(terms, sums.tolist(), strict=True)),
        problem.manifest.truth_residual["train"],
        dict(zip(terms, nulls.sqrt().tolist(), strict=True)),
    )
    for name in not_finite(scales):
        raise UserError(
            f"distill.teacher: the residual ({name}) of its samples is not a finite number, so they teach nothing; train it "
            "again, or name another"
        )
    return scales


def open_objective(settings: Settings, teacher: Generator, window: Window) -> Objective:
    """The chosen objective, without physics as yet."""
    d = settings.distill
    if d.objective == "pid":
        return Pid(d, teacher, window, None, settings.run.seed)
    if d.objective == "dm":
        return Matching(d, teacher, window, None, settings.run.seed)
    return Piddm(d, teacher, window, None)


def open_batches(
    settings: Settings, teacher: Generator, window: Window, mesh: Mesh, supply: Supply | None = None
) -> Batches:
    """The batches of this rank. supply: of actors, if there are some."""
    d, mine = settings.distill, mesh.slice(settings.distill.global_batch)
    rollout = open_rollout(settings, teacher, window.rows)
    supply = supply or open_supply(settings, rollout)
    ring = Ring(d.ring, d.reuse, d.global_batch, mine.start, mine.stop, settings.run.seed, supply.get)
    return Batches(rollout, ring, supply, d.pairs)


def train(
    settings: Settings, folder: Path, mesh: Mesh, reporter: Reporter, supply: Supply | None = None
) -> dict[str, Any]:
    """Distil, checkpoint and consolidate into folder/student (and folder/student-lambda0); resume where it stopped.

    supply: where endpoints come from, if that is nothing that the settings can open by themselves.
    Returns the last training means by arm. Raises Stopped after a checkpoint when a stop was asked for.
    """
    problem, d = settled(open_problem(settings.pde, settings.data), folder, mesh, reporter.say), settings.distill
    teacher = open_teacher(settings, folder, problem, mesh.device)
    check_constraints(problem.pde, d.constraints)
    root, stage = folder / "checkpoints" / "distill", settings.cluster.zero_stage
    found = checkpoint.newest(root, stage, mesh, reporter.say)
    if mesh.first:
        checkpoint.sweep(root)
    began = time.perf_counter()
    window = window_for(teacher.card.architecture, problem.grid, mesh.space)
    teacher = replace(teacher, denoiser=spread(teacher.denoiser, window))
    objective = open_objective(settings, teacher, window)
    batches = open_batches(settings, teacher, window, mesh, supply)
    scales = found.state["scales"] if found else measure_scales(settings, problem, batches, window, mesh)
    if d.pairs and not found:
        lacking = truncation(batches.rollout, mesh)
        if mesh.first:
            reporter.say(truncation_line(lacking, d.solver_steps))
    first, rolling = found.step if found else 0, time.perf_counter() - began
    physics = Physics(problem.pde, window, teacher.normaliser, active_weights(d), scales, d.gradient_to)
    physics_from = int(d.physics_from * d.steps)
    plan = micro_plan(d.global_batch, d.micro_batch, mesh)
    obeying = replace(objective, physics=physics)
    arms = [build_arm("student", settings, obeying if first > physics_from else objective, plan, mesh)]
    if d.twin and first > physics_from:
        arms.append(build_arm(CONTROL, settings, objective, plan, mesh))
    if found:
        rolling = float(found.state["endpoint_seconds"])
        for arm in arms:
            arm.restore(found.folder)
            arm.seconds = float(found.state["arm_seconds"][arm.name])
    guard = Guard("distill", d, root, mesh, reporter.say)
    guard.restore(found.state if found else {})
    board = Board(folder / "tb" / "distill" if mesh.first else None, first, reporter.say)
    board.text("config", json_text(to_plain(settings), indent=1))
    # of this stream alone: the teacher may be at work on another
    timer = StepTimer(torch.cuda.current_stream().synchronize if mesh.device.type == "cuda" else None)
    logged: tuple[float, int] = (time.perf_counter(), first)
    last: dict[str, dict[str, float]] = {}
    batches.start(first, d.steps)

    with closing(batches.supply), closing(board):
        for step in range(first, d.steps):
            if step == physics_from:  # from here on the student obeys the equation, and its twin goes on without
                arms += [fork(arms[0], CONTROL, root, step)] if d.twin else []
                arms[0].begin(replace(arms[0].objective, physics=physics))
            began = time.perf_counter()
            batch = batches.at(step, timer.section)
            rolling += time.perf_counter() - began
            for arm in arms:
                began = time.perf_counter()
                arm.gradients(batch, timer)
                with timer.section("optimiser"):
                    norms = arm.update(learning_rate(d, step), step)
                arm.seconds += time.perf_counter() - began
                for name, (norm, applied) in norms.items():
                    guard.step(name, step, norm, applied)
                board.scalars({f"{arm.name}/gradient_norm": norms[arm.name][0]}, step + 1)
            done = step + 1
            if done % d.log_every == 0 or done == d.steps:
                now = time.perf_counter()
                last |= {arm.name: means for arm in arms if (means := arm.take_means())}
                board.scalars({"train/skipped": guard.total}, done)
                _log(board, last, timer, now - logged[0], done - logged[1], learning_rate(d, step), batches, done)
                reporter.progress(done, d.steps, _note(last.get("student", {"loss": None})))
                logged = (now, done)
            stopping = done % d.log_every == 0 and reporter.stopped(mesh)
            if (done % d.checkpoint_every == 0 or stopping) and done < d.steps:
                state = {
                    "scales": scales,
                    "endpoint_seconds": rolling + batches.supply.tally.hidden,
                    "arm_seconds": {arm.name: arm.seconds for arm in arms},
                    "skipped": guard.state(),
                }
                _check_weights(guard, arms, done)
                picture(arms, batches.rollout, board, problem, done)
                board.flush()
                _save(arms, root, done, state)
            if stopping and done < d.steps:
                raise Stopped(f"distillation stopped at step {done} of {d.steps} with a checkpoint in {root}")

        _check_weights(guard, arms, d.steps)
        guard.result(last, picture(arms, batches.rollout, board, problem, d.steps))
        board.hparams(to_flat(settings), {f"student/{k}": v for k, v in last.get("student", {}).items()})
    for arm in arms:
        made = rolling + batches.supply.tally.hidden
        seconds = (teacher.card.metrics.train_seconds or 0.0) + made + arm.seconds
        cost = {"train_seconds": seconds, "wait_share": timer.share("teacher")}
        publish_arm(arm, folder, problem, scales, last.get(arm.name, {}) | cost)
    if mesh.first:
        checkpoint.sweep(root)
    mesh.barrier()
    return last


def _note(means: Mapping[str, float | None]) -> str:
    """The student's means as the live line shows them."""
    return " ".join(f"{name} {shown(value)}" for name, value in means.items())


def _check_weights(guard: Guard, arms: list[Arm], step: int) -> None:
    critics = [arm.critic for arm in arms if arm.critic is not None]
    guard.weights(step, [*(arm.zero for arm in arms), *critics], [arm.ema for arm in arms])


def _log(
    board: Board,
    means: dict[str, dict[str, float]],
    timer: StepTimer,
    seconds: float,
    steps: int,
    lr: float,
    batches: Batches,
    done: int,
) -> None:
    for name, values in means.items():
        kinds = {k: f"{name}/residual_{k}" if k in MEASURES else f"{name}/loss_{k}" for k in values}
        board.scalars({kinds[k]: v for k, v in values.items()}, done)
    parts = timer.take()
    board.scalars(rates(parts, steps, seconds, batches.ring.batch, "teacher") | {"train/lr": lr}, done)
    if batches.pairs:
        (made, busy), ring = batches.supply.tally.take(), batches.ring
        made = made * ring.batch // (ring.last - ring.first)  # of all groups
        work = busy + sum(parts.values()) - parts.get("teacher", 0.0)
        shares = {"ring/fresh_fraction": ring.made / max(1, ring.used)}
        board.scalars(shares | {"endpoints/per_second": made / seconds, "endpoints/work_share": busy / work}, done)


def _save(arms: list[Arm], root: Path, step: int, state: dict[str, Any]) -> None:
    averages = {arm.name: arm.ema.full_weights() for arm in arms}
    s, mesh = arms[0].settings, arms[0].mesh
    needed = sum(arm.bytes for arm in arms) + sum(one.nbytes for a in averages.values() for one in a.values())

    def write(folder: Path) -> None:
        for arm in arms:
            arm.save(folder, averages[arm.name])

    checkpoint.save(root, step, state, s.cluster.zero_stage, mesh, s.distill.keep, write, needed)
