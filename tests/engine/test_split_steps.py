"""Training steps on meshes (data, space): gradients before clipping equal those of one process on whole fields.

In float64 without DeepSpeed, where the test adds up the shares of the ranks, and in float32 under ZeRO stages 0 to 3, with
accumulation, short shares and uneven rows. All weights are random: initial zeros would hide most of a network.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
import torch.distributed as dist

from pidscale.config import SOLVERS
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.denoiser import conditioned
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.solvers import integrate
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.objectives import OBJECTIVES, open_objective
from pidscale.distill.objectives.physics import Physics
from pidscale.distill.students import Student
from pidscale.engine.conflict import factors
from pidscale.engine.ema import Ema
from pidscale.engine.schedule import micro_plan
from pidscale.engine.spread import spread, window_for
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from pidscale.pde.parameters import condition, draw_params, params_of
from pidscale.teacher import training
from pidscale.teacher.objectives import OBJECTIVES as TEACHERS
from pidscale.teacher.objectives.base import MicroBatch
from tests import small
from tests.ranks import spawn
from tests.small import bare_teacher

BATCH, STEP, POINTS = 7, 3, 18  # 18 rows in units of 2: 8 and 10, or 4, 4, 4 and 6
CASES = {"unet": "darcy18", "fno": "heat18"}  # with attention and group norms; with conditions and frames
WEIGHTS = {"l2": 0.3, "dual": 0.2, "boundary": 0.1}
SCALES = {"l2": 2.0, "dual": 0.5, "boundary": 0.3}
OWN = {"power": 0.3, "huber": 0.5}
SEVERAL, COMBINED = "dm of 3 calls", "piddm without conflict"
DISTILLED = {name: {"name": name} for name in OBJECTIVES} | {SEVERAL: {"name": "dm", "call_levels": [1.0, 0.3]}}
DISTILLED |= {COMBINED: {"name": "piddm"}}
TAUGHT = {name: {"name": name} for name in TEACHERS}
TAUGHT |= {
    "pidm": {"name": "pidm", "weight": 0.1},
    "pidm of 3 calls": {"name": "pidm", "weight": 0.1, "estimate_steps": 3},
    "pirf": {"name": "pirf", "steps": 3, "through": 2},
}
WHOLE = ["pbfm", COMBINED]  # need whole weights on each rank: stage 2 at most


class PlainEngine:
    """What a loop needs of `Zero`, without DeepSpeed: gradients stay in the parameters, and are added up over ranks."""

    def __init__(self, module):
        self.module = module

    def __call__(self, *inputs):
        return self.module(*inputs)

    def backward(self, share):
        share.backward()

    def gradients(self):
        gradients = {name: p.grad.clone() for name, p in self.module.named_parameters()}
        for gradient in gradients.values():
            dist.all_reduce(gradient)
        return gradients


def case(folder, kind, dtype, stage=0, recompute=False):
    """Settings, problem, a network with random weights, and clean fields of a global batch with their parameters."""
    shards = folder / CASES[kind]
    settings = small.settings(
        shards,
        folder,
        kind,
        pde=small.pde_section(shards) | {"points": POINTS},
        teacher={"global_batch": BATCH, "micro_batch": 2},
        distill={
            "global_batch": BATCH + 1,
            "micro_batch": 3,
            "chunk": 1,
            "scale_samples": BATCH + 1,
            "gradient_to": "shape",
            "constraints": ["zero_edge" if kind == "unet" else "zero_mean"],
        },
        cluster={"zero_stage": stage},
    )
    settings = replace(settings, model=replace(settings.model, recompute=recompute))
    problem = open_problem(settings.pde, settings.data)
    model = build_denoiser(training.describe(settings, problem), recompute=recompute)
    rng = torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data = 0.15 * torch.randn(parameter.shape, dtype=torch.float64, generator=rng).to(dtype)
    fields = torch.randn(BATCH + 1, *problem.shape, dtype=torch.float64, generator=rng).to(dtype) / 2
    return settings, problem, model.to(dtype), fields, draw_params(problem.pde, 0, "x", range(BATCH + 1))


def generator(settings, problem, model):
    architecture = training.describe(settings, problem)
    return bare_teacher(model, problem.pde, problem.grid, problem.normaliser, EdmNoise(), architecture)


def learning(settings, objective):
    """By this objective, with those of OWN that it has."""
    chosen = DISTILLED.get(objective, {"name": objective})
    kind = OBJECTIVES[chosen["name"]].settings_class
    own = chosen | {field.name: OWN[field.name] for field in fields(kind) if field.name in OWN}
    head = 2 if objective == "piddm" else 0  # solver steps behind the network, for one of them
    combine = "conflict_free" if objective == COMBINED else "sum"
    return replace(settings, distill=replace(settings.distill, objective=own, head=head, combine=combine))


def objective_of(settings, teacher, window):
    """With physics; a frozen teacher and partners of other weights than the student's."""

    def frozen(factor):
        model = copy.deepcopy(teacher.denoiser).requires_grad_(False)
        for parameter in model.parameters():
            parameter.mul_(factor)
        return spread(model, window)

    goal = open_objective(settings, replace(teacher, denoiser=frozen(0.9)), window)
    units, gradient_to = teacher.normaliser, settings.distill.gradient_to
    physics = Physics(teacher.pde, window, units, WEIGHTS, SCALES, gradient_to)
    networks = {partner.name: frozen(1.1) for partner in goal.partners(goal.own)}
    return replace(goal, physics=physics, networks=networks)


# ---- the reference: one process


def teaching(settings, problem, window, objective):
    """By this objective of a teacher."""
    chosen = replace(settings.teacher, objective=TAUGHT[objective])
    return chosen.needs(chosen, problem, EdmNoise(), window)


def plain_teacher(folder, kind, dtype, objective="denoising"):
    settings, problem, model, x, params = case(folder, kind, dtype)
    plan = micro_plan(BATCH, 2, Mesh())
    goal = teaching(settings, problem, Window(problem.grid), objective)
    eps, sigma = training.Teacher(settings, problem, EdmNoise(), None, None, goal, plan, Mesh()).draw(STEP)
    given = condition(problem.pde, params[:BATCH])
    own = conditioned(model, given)
    progress = STEP / settings.teacher.steps
    losses = goal.losses(own, MicroBatch(x[:BATCH], sigma, eps, params_of(problem.pde, given), progress))
    return whole(model, [part.mean() for part in losses], goal.conflict_free(goal.own))


def whole(model, parts, apart):
    """Their sum, and its gradient by parameter, or the combination of the gradients of two parts."""
    weights = dict(model.named_parameters())
    found = [torch.autograd.grad(part, weights.values(), retain_graph=True, allow_unused=True) for part in parts]
    norms = [torch.cat([g.flatten() for g in one if g is not None]).norm() for one in found]
    combined = factors(*map(float, norms)) if apart else [1.0] * len(parts)
    gradients = {
        name: sum(scale * g for scale, g in zip(combined, each, strict=True) if g is not None)
        for name, *each in zip(weights, *found, strict=True)
    }
    return sum(parts).detach(), gradients


def step_of(goal):
    """A step whose samples are made by as many calls as there may be."""
    return next(step for step in range(100) if goal.calls(step) == 3) if goal.call_levels else 0


def plain_student(folder, kind, dtype, objective="piddm"):
    settings, problem, model, targets, params = case(folder, kind, dtype)
    settings = learning(settings, objective)
    window = Window(problem.grid)
    eps = Rollout(generator(settings, problem, model), "heun", 3, 1, 0).eps(torch.arange(BATCH + 1))
    goal = objective_of(settings, generator(settings, problem, model), window)
    own = condition(problem.pde, params)
    batch = Batch(step_of(goal), torch.arange(BATCH + 1), eps, params, own, targets)
    learned = goal.losses(model, batch, StepTimer())
    apart = settings.distill.combine == "conflict_free"
    penalty = goal.penalty(learned.parts, batch)
    parts = [learned.loss - penalty, penalty] if apart else [learned.loss]
    return whole(model, [part.mean() for part in parts], apart)


# ---- ranks


def engine_for(model, settings, plan, mesh, zero):
    if not zero:
        return PlainEngine(model), None
    wrapped = Zero(model, ZeroSettings(settings.cluster.zero_stage, plan.micro, plan.accumulation, 0.5, {}), mesh)
    return wrapped, Ema(wrapped.module, settings.cluster.zero_stage, mesh, 0.1)


def split_teacher(folder, kind, dtype, mesh, stage=None, recompute=False, objective="denoising"):
    settings, problem, model, x, params = case(folder, kind, dtype, stage or 0, recompute)
    window, plan = (
        window_for(training.describe(settings, problem), problem.grid, mesh.space),
        micro_plan(BATCH, 2, mesh),
    )
    zero, ema = engine_for(spread(model, window), settings, plan, mesh, stage is not None)
    goal = teaching(settings, problem, window, objective)
    teacher = training.Teacher(settings, problem, EdmNoise(), zero, ema, goal, plan, mesh)
    mine = mesh.slice(BATCH)
    losses = teacher.gradients(STEP, window.crop(x[mine]), condition(problem.pde, params[mine]), StepTimer())
    return finished(zero, stage, mesh, losses.sum())


def split_student(folder, kind, dtype, mesh, stage=None, recompute=False, objective="piddm"):
    settings, problem, model, targets, params = case(folder, kind, dtype, stage or 0, recompute)
    settings = learning(settings, objective)
    teacher = generator(settings, problem, model)
    window = window_for(teacher.card.architecture, problem.grid, mesh.space)
    plan = micro_plan(BATCH + 1, settings.distill.micro_batch, mesh)
    mine = mesh.slice(BATCH + 1)
    goal = objective_of(settings, teacher, window)
    zero, ema = engine_for(spread(model, window), settings, plan, mesh, stage is not None)
    student = Student("student", settings, goal, plan, mesh, zero, ema)
    counters = torch.arange(mine.start, mine.stop)
    eps = Rollout(teacher, "heun", 3, 1, 0, rows=window.rows).eps(counters)
    own = condition(problem.pde, params[mine])
    student.gradients(Batch(step_of(goal), counters, eps, params[mine], own, window.crop(targets[mine])), StepTimer())
    return finished(zero, stage, mesh, student.sums["loss"])


def finished(zero, stage, mesh, loss):
    gradients = zero.gradients()
    if stage is not None:
        norm, applied = zero.step(1e-3)
        assert applied
        zero.close()
        gradients["norm"] = torch.tensor(norm)
    return mesh.sum(loss), gradients


def double(rank, world, folder, spaces):
    found = {}
    for space in spaces:
        mesh = Mesh.over(rank, world, torch.device("cpu"), space)
        for kind in CASES:
            for name in TAUGHT:
                found[space, kind, name] = split_teacher(folder, kind, torch.float64, mesh, objective=name)
            for name in DISTILLED:
                found[space, kind, name] = split_student(folder, kind, torch.float64, mesh, objective=name)
    return found if rank == 0 else None


def under_zero(rank, world, folder, stages):
    mesh = Mesh.over(rank, world, torch.device("cpu"), 2)
    found = {}
    for stage, kind in itertools.product(stages, CASES):
        for recompute in (False, True) if stage == 3 else (False,):
            every = [name for name in TAUGHT if name not in WHOLE] if (stage, recompute) == (3, True) else ["denoising"]
            for name in [*every, *(["pbfm"] if stage < 3 else [])]:
                found[stage, kind, name, recompute] = split_teacher(
                    folder, kind, torch.float32, mesh, stage, recompute, name
                )
            every = [name for name in DISTILLED if name not in WHOLE] if (stage, recompute) == (3, True) else ["piddm"]
            for name in [*every, *([COMBINED] if stage < 3 else [])]:
                found[stage, kind, name, recompute] = split_student(
                    folder, kind, torch.float32, mesh, stage, recompute, name
                )
    return found if rank == 0 else None


PLAIN = {name: partial(plain_teacher, objective=name) for name in TAUGHT}
PLAIN |= {name: partial(plain_student, objective=name) for name in DISTILLED}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    small.make_set(folder / "darcy18", build_pde("darcy"), POINTS)
    small.make_set(folder / "heat18", build_pde(**small.HEAT), POINTS)
    return folder


def near(where, found, wanted, tolerance):
    (loss, gradients), (true_loss, true) = found, wanted
    assert abs(float(loss) - float(true_loss)) <= 10 * tolerance * abs(float(true_loss)), where
    size = torch.cat([g.flatten() for g in true.values()]).norm()
    for name, gradient in true.items():
        error = float((gradients[name].to(gradient) - gradient).norm() / size)
        assert error <= tolerance, f"{where} {name}: {error:.2e} of the norm of all gradients"
    if "norm" in gradients:
        assert abs(float(gradients["norm"]) - float(size)) <= 1e-4 * float(size), where


@pytest.mark.slow
@pytest.mark.parametrize(("world", "spaces"), [(2, (1, 2)), (3, (3,)), (4, (2, 4))])
def test_split_steps_in_double_precision(sets, world, spaces):
    found = spawn(double, world, sets, spaces)[0]
    for kind, which in itertools.product(CASES, PLAIN):
        wanted = PLAIN[which](sets, kind, torch.float64)
        for space in spaces:
            near(f"{which} {kind} space {space} of {world}", found[space, kind, which], wanted, 1e-12)


@pytest.mark.slow
def test_split_steps_under_zero_on_two_by_two_ranks(sets):
    found = spawn(under_zero, 4, sets, (0, 1, 2, 3), timeout=600)[0]
    every = 4 * 2 + 3 * len(WHOLE) + len(DISTILLED) + len(TAUGHT) - len(WHOLE)
    assert len(found) == len(CASES) * every
    for (stage, kind, which, recompute), result in found.items():
        wanted = PLAIN[which](sets, kind, torch.float32)
        near(f"{which} {kind} stage {stage} recompute {recompute}", result, wanted, 1e-5)


# ---- solvers and noise


def sampled(rank, world, folder):
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    found = {}
    for kind in CASES:
        settings, problem, model, _, params = case(folder, kind, torch.float64)
        window = window_for(training.describe(settings, problem), problem.grid, mesh.space)
        teacher = replace(generator(settings, problem, model), denoiser=spread(model, window))
        eps = Rollout(teacher, "heun", 3, 1, 0, rows=window.rows).eps(torch.arange(3))
        visited = []
        with torch.no_grad():
            samples = {
                s: integrate(teacher.conditioned_on(params[:3]), eps.double(), EdmNoise().levels(4), s, visited)
                for s in SOLVERS
            }
        found[kind] = eps, samples, visited
    return found


@pytest.mark.parametrize("world", [2, 4])
def test_samples_and_trajectories_of_split_fields_equal_those_of_whole_fields(sets, world):
    ranks = spawn(sampled, world, sets)
    for kind in CASES:
        settings, problem, model, _, params = case(sets, kind, torch.float64)
        teacher = generator(settings, problem, model)
        eps = Rollout(teacher, "heun", 3, 1, 0).eps(torch.arange(3))
        states = []
        assert torch.equal(torch.cat([rank[kind][0] for rank in ranks], dim=2), eps)  # to the last bit
        for solver in SOLVERS:
            with torch.no_grad():
                whole = integrate(
                    teacher.conditioned_on(params[:3]), eps.double(), EdmNoise().levels(4), solver, states
                )
            found = torch.cat([rank[kind][1][solver] for rank in ranks], dim=2)
            assert (found - whole).norm() <= 1e-12 * whole.norm(), (kind, solver)
        for number, state in enumerate(states):
            found = torch.cat([rank[kind][2][number] for rank in ranks], dim=2)
            assert (found - state).norm() <= 1e-12 * state.norm(), (kind, number)
