"""A frozen teacher and counters to one-step students: the second and last training loop. Knows nothing of Ray.

Every rank calls `train` with the same settings. Endpoints come from the teacher on the fly, through a bounded ring.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pidscale.config import Settings, UserError, to_flat, to_plain
from pidscale.diffusion.solvers import one_step
from pidscale.distill.arms import Arm, build_arm, fork
from pidscale.distill.objectives import TERMS, Physics, active_weights, frozen_scales
from pidscale.distill.ring import Ring
from pidscale.distill.rollout import Rollout, checksum
from pidscale.engine import checkpoint
from pidscale.engine.consolidate import card, publish
from pidscale.engine.pictures import picture_row
from pidscale.engine.reporting import Reporter, Stopped
from pidscale.engine.schedule import learning_rate, micro_plan
from pidscale.engine.skip import settled
from pidscale.engine.spread import spread, window_for
from pidscale.generate.problem import Problem, open_problem
from pidscale.meter import Board, StepTimer, rates
from pidscale.models.precondition import conditioned
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import Samples, condition, residual_shares
from pidscale.pde.constraints import check_constraints
from pidscale.student.load import Generator, check_fits, load_student

TWIN = "student-lambda0"


def open_teacher(settings: Settings, folder: Path, problem: Problem, device: torch.device) -> Generator:
    """Load the frozen teacher and check that it is one, of this equation on this grid. Raises UserError."""
    path = Path(settings.distill.teacher or folder / "teacher")
    if not path.exists():
        raise UserError(f"{path}: no teacher there; run launch/train_teacher.py first, or set distill.teacher")
    teacher = load_student(path, device)
    if teacher.card["kind"] != "teacher":
        raise UserError(f"{path}: holds a {teacher.card['kind']}, expected a teacher; set distill.teacher")
    check_fits(teacher, path, problem.pde, problem.grid, "set distill.teacher or the pde")
    return teacher


def measure_scales(
    settings: Settings, problem: Problem, ring: Ring, rollout: Rollout, window: Window, mesh: Mesh
) -> dict[str, float]:
    """s_k^2 by term: mean squared residuals of the teacher's own samples, measured once, split over the ranks.

    Where the endpoints to train on are made as the scale wants them, the ring's first rows are measured, and kept.
    """
    d = settings.distill
    rows = d.scale_samples // d.global_batch
    if (d.solver, d.solver_steps) == ("heun", d.scale_steps) and rows <= d.ring:
        parts = [ring.row(slot, 0) for slot in range(rows)]
    else:
        scaling = replace(rollout, solver="heun", steps=d.scale_steps, stream="distill/scale")
        parts = [scaling.endpoints(ring.counters(row, 0)) for row in range(rows)]
    fields = rollout.teacher.normaliser.decode(torch.cat([part.fields_BCYX for part in parts]))
    shares = residual_shares(problem.pde, window, fields, torch.cat([part.params_BP for part in parts]))
    sums = mesh.sum(torch.stack([shares[k].double().sum() for k in TERMS])) / (rows * d.global_batch)
    truth = problem.samples("train", 64, window.rows).on(mesh.device)
    null = residual_shares(problem.pde, window, problem.pde.trivial(truth.fields, window), truth.params)
    nulls = mesh.sum(torch.stack([null[k].double().sum() for k in TERMS])) / (mesh.data * len(truth.fields))
    return frozen_scales(
        dict(zip(TERMS, sums.tolist(), strict=True)),
        problem.manifest.truth_residual["train"],
        dict(zip(TERMS, nulls.sqrt().tolist(), strict=True)),
    )


def train(settings: Settings, folder: Path, mesh: Mesh, reporter: Reporter) -> dict[str, Any]:
    """Distil, checkpoint and consolidate into folder/student (and folder/student-lambda0); resume where it stopped.

    Returns the last training means by arm. Raises Stopped after a checkpoint when a stop was asked for.
    """
    problem, d = settled(open_problem(settings.pde, settings.data), folder, mesh, reporter.say), settings.distill
    teacher = open_teacher(settings, folder, problem, mesh.device)
    check_constraints(problem.pde, d.constraints)
    root, stage = folder / "checkpoints" / "distill", settings.cluster.zero_stage
    found = checkpoint.newest(root, stage, mesh, reporter.say)
    began = time.perf_counter()
    window = window_for(teacher.card["architecture"], problem.grid, mesh.space)
    teacher = replace(teacher, denoiser=spread(teacher.denoiser, window))
    rollout = Rollout(teacher, d.solver, d.solver_steps, d.chunk, settings.run.seed, rows=window.rows)
    mine = mesh.slice(d.global_batch)
    ring = Ring(d.ring, d.reuse, d.global_batch, mine.start, mine.stop, settings.run.seed, rollout.endpoints)
    scales = found.state["scales"] if found else measure_scales(settings, problem, ring, rollout, window, mesh)
    first, rolling = found.step if found else 0, time.perf_counter() - began
    weights = active_weights(d.weights, d.norm)
    physics = Physics(problem.pde, window, teacher.normaliser, weights, scales, d.gradient_to)
    physics_from = int(d.physics_from * d.steps)
    plan = micro_plan(d.global_batch, d.micro_batch, mesh)
    arms = [build_arm("student", settings, teacher, physics if first > physics_from else None, window, plan, mesh)]
    if d.twin and first > physics_from:
        arms.append(build_arm(TWIN, settings, teacher, None, window, plan, mesh))
    if found:
        rolling = float(found.state["endpoint_seconds"])
        for arm in arms:
            arm.restore(found.folder)
            arm.seconds = float(found.state["arm_seconds"][arm.name])
    board = Board(folder / "tb" / "distill" if mesh.first else None, first)
    board.text("config", json.dumps(to_plain(settings), indent=1))
    timer = StepTimer(torch.cuda.synchronize if mesh.device.type == "cuda" else None)
    logged, last = (time.perf_counter(), first), {}

    for step in range(first, d.steps):
        if step == physics_from:  # from here on the student obeys the equation, and its twin goes on without
            arms += [fork(arms[0], TWIN, root / "fork")] if d.twin else []
            arms[0].physics, arms[0].sums, arms[0].steps = physics, {}, 0
        with timer.part("teacher"):
            began = time.perf_counter()
            endpoints = ring.take(step)
            rolling += time.perf_counter() - began
        with timer.part("data"):
            eps = rollout.eps(endpoints.counters)
            if not torch.equal(checksum(eps), endpoints.checksums):
                raise RuntimeError(f"step {step}: noise and endpoint do not belong together")
        for arm in arms:
            began = time.perf_counter()
            arm.gradients(eps, endpoints, timer)
            with timer.part("optimiser"):
                norm, applied = arm.zero.step(learning_rate(d, step))
                arm.ema.update(step)
            arm.seconds += time.perf_counter() - began
            if not applied:
                reporter.say(f"warning: {arm.name} step {step} skipped: its gradient is not finite")
            board.scalars({f"{arm.name}/gradient_norm": norm}, step + 1)
        done = step + 1
        if done % d.log_every == 0 or done == d.steps:
            now = time.perf_counter()
            last = {arm.name: arm.take_means() for arm in arms}
            _log(board, last, timer, now - logged[0], done - logged[1], learning_rate(d, step), ring, settings, done)
            reporter.progress(done, d.steps, " ".join(f"{k} {v:.4f}" for k, v in last["student"].items()))
            logged = (now, done)
        stopping = done % d.log_every == 0 and reporter.stopped(mesh)
        if (done % d.checkpoint_every == 0 or stopping) and done < d.steps:
            state = {
                "scales": scales,
                "endpoint_seconds": rolling,
                "arm_seconds": {arm.name: arm.seconds for arm in arms},
            }
            _picture(arms, rollout, board, settings, problem, done)
            board.flush()
            _save(arms, root, done, state)
        if stopping and done < d.steps:
            raise Stopped(f"distillation stopped at step {done} of {d.steps} with a checkpoint in {root}")

    _picture(arms, rollout, board, settings, problem, d.steps)
    board.hparams(to_flat(settings), {f"student/{k}": v for k, v in last["student"].items()})
    board.close()
    for arm in arms:
        seconds = float(teacher.card["metrics"]["train_seconds"]) + rolling + arm.seconds
        cost = {"train_seconds": seconds, "wait_share": timer.share("teacher")}
        _publish(arm, folder, problem, settings, scales, last[arm.name] | cost)
    mesh.barrier()
    return last


def _log(
    board: Board,
    means: dict[str, dict[str, float]],
    timer: StepTimer,
    seconds: float,
    steps: int,
    lr: float,
    ring: Ring,
    settings: Settings,
    done: int,
) -> None:
    for name, values in means.items():
        kinds = {k: f"{name}/residual_{k}" if k in TERMS else f"{name}/loss_{k}" for k in values}
        board.scalars({kinds[k]: v for k, v in values.items()}, done)
    board.scalars(
        rates(timer.take(), steps, seconds, settings.distill.global_batch, "teacher") | {"train/lr": lr}, done
    )
    board.scalars({"ring/fresh_fraction": ring.made / max(1, ring.used)}, done)


def _save(arms: list[Arm], root: Path, step: int, state: dict[str, Any]) -> None:
    averages = {arm.name: arm.ema.whole() for arm in arms}
    s, mesh = arms[0].settings, arms[0].mesh

    def write(folder: Path) -> None:
        for arm in arms:
            arm.save(folder, averages[arm.name])

    checkpoint.save(root, step, state, s.cluster.zero_stage, mesh, s.distill.keep, write)


def _picture(arms: list[Arm], rollout: Rollout, board: Board, settings: Settings, problem: Problem, step: int) -> None:
    """Truth, teacher and students from the same noise, and their residuals; drawn by the first rank."""
    plain, window = {arm.name: (arm, arm.averaged()) for arm in arms}, arms[0].window
    if arms[0].mesh.data_rank > 0:
        return
    endpoints = rollout.endpoints(torch.arange(rollout.chunk) + 2**60)
    eps, params = rollout.eps(endpoints.counters[:4]), endpoints.params_BP[:4]
    decode = rollout.teacher.normaliser.decode
    sets = {
        "truth": problem.samples("test", 4, window.rows).on(eps.device),
        "teacher": Samples(decode(endpoints.fields_BCYX[:4]), params),
    }
    told = condition(problem.pde, params).to(eps.device)
    with torch.no_grad():
        for name, (arm, denoiser) in plain.items():
            x = one_step(conditioned(denoiser, told), eps, rollout.teacher.noise.sigma_max)
            sets[name] = Samples(decode(arm.output(x)), params)
    board.image("fields", picture_row(problem.pde, window, sets), step)


def _publish(
    arm: Arm, folder: Path, problem: Problem, settings: Settings, scales: dict[str, float], metrics: dict[str, float]
) -> None:
    weights = arm.ema.whole()
    if not arm.mesh.first:
        return
    teacher, d = arm.teacher, settings.distill
    provenance = {
        "data_hash": problem.manifest.data_hash,
        "teacher": teacher.card["weights"]["sha256"],
        "seed": settings.run.seed,
        "steps": d.steps,
        "endpoints": {"solver": d.solver, "steps": d.solver_steps, "reuse": d.reuse},
        "weights": arm.physics.weights if arm.physics else {},
        "scales": scales,
        "gradient_to": d.gradient_to,
        "huber": d.huber,
        "power": d.power,
    }
    contents = card(
        "student",
        problem.pde,
        problem.grid,
        teacher.normaliser,
        teacher.noise,
        teacher.card["architecture"],
        provenance,
        metrics,
        d.constraints,
    )
    publish(folder / arm.name, weights, contents)
