"""Real steps of both loops on a mesh, for benchmarks that run in processes of their own: ZeRO, residual and all.

What a step is given (clean fields, endpoints) is drawn at random: neither its time nor its memory depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pidscale.config import Settings, from_plain
from pidscale.dataset.problem import Problem, open_problem
from pidscale.diffusion.noise import EdmNoise
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.objectives import open_objective
from pidscale.distill.objectives.physics import Physics
from pidscale.distill.students import Student, build_student
from pidscale.engine.schedule import micro_plan
from pidscale.engine.spread import window_for
from pidscale.generator.load import Generator
from pidscale.make.make import make_shard_set
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.pde.base import condition, draw_params
from pidscale.teacher import training

Step = Callable[[], None]


def small_set(folder: Path, name: str, points: int) -> Path:
    """A set of four samples, made where it is not there yet: its grid and normaliser are what a step needs."""
    root, pde = folder / f"{name}{points}", build_pde(name)
    if not (root / "manifest.json").exists():
        make_shard_set(pde, root, {"train": 4, "test": 2}, grid=pde.grid(points), seed=0, parallel=False)
    return root


def settings_for(shards: Path, name: str, points: int, model: dict[str, Any], batch: int, stage: int = 1) -> Settings:
    """Settings of a step on a global batch that is one micro-step."""
    step = {"global_batch": batch, "micro_batch": batch}
    plain = {
        "pde": {"name": name, "points": points},
        "data": {"path": str(shards)},
        "model": model,
        "teacher": step,
        "distill": step
        | {"chunk": 1, "scale_samples": batch, "solver": "heun", "physics_from": 0.0}
        | {"objective": {"power": 0.0}},
        "cluster": {"zero_stage": stage},
    }
    return from_plain(Settings, plain)


def teacher_step(settings: Settings, mesh: Mesh) -> Step:
    """One step of the teacher's training on this rank."""
    problem = open_problem(settings.pde, settings.data)
    teacher = training.build(settings, problem, EdmNoise(), mesh)
    mine, rows = mesh.slice(settings.teacher.global_batch), teacher.window.rows
    x = torch.randn(mine.stop - mine.start, problem.shape[0], rows.stop - rows.start, problem.shape[2])
    told = condition(problem.pde, draw_params(problem.pde, 0, "x", range(len(x))))

    def step() -> None:
        teacher.gradients(0, x, told, StepTimer())
        teacher.zero.step(1e-4)
        teacher.ema.update(0)

    return step


def student_step(settings: Settings, mesh: Mesh) -> Step:
    """One step of a distillation with l2, dual and boundary terms, given its endpoints."""
    problem, d = open_problem(settings.pde, settings.data), settings.distill
    teacher = fresh_teacher(settings, problem)
    window = window_for(teacher.card["architecture"], problem.grid, mesh.space)
    arm, mine = student_arm(settings, teacher, window, mesh), mesh.slice(d.global_batch)
    counters = torch.arange(mine.start, mine.stop)
    rollout = Rollout(teacher, "heun", 2, 1, 0, rows=window.rows)
    eps, params = rollout.eps(counters), rollout.params(counters)
    batch = Batch(0, counters, eps, params, condition(problem.pde, params), torch.randn_like(eps))

    def step() -> None:
        arm.gradients(batch, StepTimer())
        arm.update(1e-4, 0)

    return step


def student_arm(settings: Settings, teacher: Generator, window: Window, mesh: Mesh) -> Student:
    """A student with all terms of the residual."""
    physics = Physics(teacher.pde, window, teacher.normaliser, _ONES, _ONES)
    plan = micro_plan(settings.distill.global_batch, settings.distill.micro_batch, mesh)
    objective = replace(open_objective(settings, teacher, window), physics=physics)
    return build_student("student", settings, objective, plan, mesh)


_ONES = {"l2": 1.0, "dual": 1.0, "boundary": 1.0}
STEPS = {"teacher": teacher_step, "student": student_step}


def fresh_teacher(settings: Settings, problem: Problem) -> Generator:
    """A teacher that has learnt nothing, as a distillation would load it."""
    card: dict[str, Any] = {"kind": "teacher", "architecture": training.describe(settings, problem)}
    denoiser = build_denoiser(card["architecture"]).eval().requires_grad_(False)
    return Generator(card, denoiser, problem.pde, problem.grid, problem.normaliser, EdmNoise(), torch.device("cpu"))
