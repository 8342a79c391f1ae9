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
from pidscale.engine.consolidate import publish
from pidscale.engine.schedule import micro_plan
from pidscale.engine.spread import window_for
from pidscale.generator.card import Card, Kind, Metrics
from pidscale.generator.generator import Generator, Teacher
from pidscale.make.make import make_shard_set
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.pde.parameters import condition, draw_params
from pidscale.teacher import training

Step = Callable[[], None]
ONES = {"l2": 1.0, "dual": 1.0, "boundary": 1.0}


def small_set(folder: Path, name: str, points: int) -> Path:
    """Return a set of four samples, made where it is missing: its grid and normaliser are what a step needs."""
    root = folder / f"{name}{points}"
    if not (root / "manifest.json").exists():
        pde = build_pde(name)
        make_shard_set(pde, root, {"train": 4, "test": 2}, grid=pde.grid(points), seed=0, parallel=False)
    return root


def settings_for(shards: Path, name: str, points: int, model: dict[str, Any], batch: int) -> Settings:
    """Return settings of a step on a global batch that is one micro-step, under ZeRO 1."""
    step = {"global_batch": batch, "micro_batch": batch}
    plain = {
        "pde": {"name": name, "points": points},
        "data": {"path": str(shards)},
        "model": model,
        "teacher": step,
        "distill": step
        | {"chunk": 1, "scale_samples": batch, "solver": "heun", "physics_from": 0.0}
        | {"objective": {"power": 0.0}},
        "cluster": {"zero_stage": 1},
    }
    return from_plain(Settings, plain)


def fresh_teacher(settings: Settings, problem: Problem) -> Teacher:
    """Return a teacher that has learnt nothing, as a distillation would load it."""
    parts: dict[str, Any] = {"grid": problem.grid, "normaliser": problem.normaliser, "noise": EdmNoise()}
    architecture = training.describe(settings, problem)
    card = Card.of(Kind.TEACHER, problem.pde, architecture=architecture, metrics=Metrics(0.0), **parts)
    denoiser = build_denoiser(architecture).eval().requires_grad_(False)
    return Teacher(card, denoiser, problem.pde, device=torch.device("cpu"), **parts)


def publish_fresh_teacher(settings: Settings, folder: Path) -> None:
    """Write such a teacher as a finished one."""
    fresh = fresh_teacher(settings, open_problem(settings.pde, settings.data))
    publish(folder, fresh.denoiser.state_dict(), fresh.card)


def teacher_step(settings: Settings, mesh: Mesh) -> Step:
    """Return one step of the teacher's training on this rank."""
    problem = open_problem(settings.pde, settings.data)
    teacher = training.build(settings, problem, EdmNoise(), mesh)
    mine = mesh.slice(settings.teacher.global_batch)
    rows = teacher.window.rows
    x = torch.randn(mine.stop - mine.start, problem.shape[0], rows.stop - rows.start, problem.shape[2])
    conditions = condition(problem.pde, draw_params(problem.pde, 0, "x", range(len(x))))

    def step() -> None:
        teacher.gradients(0, x, conditions, StepTimer())
        teacher.zero.step(1e-4)
        teacher.ema.update(0)

    return step


def student_step(settings: Settings, mesh: Mesh) -> Step:
    """Return one step of a distillation with l2, dual and boundary terms, given its endpoints."""
    problem = open_problem(settings.pde, settings.data)
    teacher = fresh_teacher(settings, problem)
    window = window_for(teacher.card.architecture, problem.grid, mesh.space)
    student = student_in_training(settings, teacher, window, mesh)
    mine = mesh.slice(settings.distill.global_batch)
    counters = torch.arange(mine.start, mine.stop)
    rollout = Rollout(teacher, "heun", 2, 1, 0, rows=window.rows)
    eps = rollout.eps(counters)
    params = rollout.params(counters)
    batch = Batch(0, counters, eps, params, condition(problem.pde, params), torch.randn_like(eps))

    def step() -> None:
        student.gradients(batch, StepTimer())
        student.update(1e-4, 0)

    return step


def student_in_training(settings: Settings, teacher: Generator, window: Window, mesh: Mesh) -> Student:
    """Return a student that is trained with all terms of the residual."""
    physics = Physics(teacher.pde, window, teacher.normaliser, ONES, ONES)
    plan = micro_plan(settings.distill.global_batch, settings.distill.micro_batch, mesh)
    objective = replace(open_objective(settings, teacher, window), physics=physics)
    return build_student("student", settings, objective, plan, mesh)


STEPS = {"teacher": teacher_step, "student": student_step}
