"""Consistency distillation against closed forms, of Gaussian data with its exact linear teacher; and in real runs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from pidscale.config import DistillSettings
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.noise import EdmNoise, karras_levels
from pidscale.diffusion.solvers import heun_step, integrate
from pidscale.distill.endpoints.rollout import open_rollout, open_teacher
from pidscale.distill.objectives.consistency import TARGET, Consistency, consistency_map
from pidscale.distill.objectives.physics import Physics
from pidscale.generator.load import load_student, load_teacher
from pidscale.meter import StepTimer
from pidscale.models import build_denoiser
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.parallel.spawn import spawn
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS
from tests import small
from tests.distill.gaussians import BOTTOM, GRID, PDE, SPREADS, TOP, UNITS, batch, gaussian
from tests.distill.test_loop import live
from tests.small import bare_teacher


def exact(x: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """The exact flow from one level to another."""
    s, t = (level.double().reshape(-1, 1, 1, 1) for level in (here, there))
    return x * ((SPREADS**2 + t**2) / (SPREADS**2 + s**2)).sqrt()


def closed_form(x: Tensor, sigma: Tensor) -> Tensor:
    """The consistency function of the exact flow: x sqrt((s^2 + sigma_min^2) / (s^2 + sigma^2))."""
    return exact(x, sigma, torch.full_like(sigma, BOTTOM))


def denoiser_of(function, factor: float = 1.0):
    """The D that makes a consistency function of its values, times a factor, for `consistency_map` to give it back."""

    def denoiser(x: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
        share = ((1 / sigma - 1 / TOP) / (1 / BOTTOM - 1 / TOP)).reshape(-1, 1, 1, 1)
        free = (1 - share).where(share < 1 - 1e-9, torch.ones_like(share))  # at the lowest level D does not count
        return factor * (function(x, sigma) - share * x) / free

    return denoiser


@dataclass(frozen=True)
class ExactFlow(Consistency):
    """With the exact flow in place of a Heun step."""

    def flow(self, x_BCYX: Tensor, here_B: Tensor, there_B: Tensor, condition_BP: Tensor) -> Tensor:
        return exact(x_BCYX, here_B, there_B)


def objective(kind=ExactFlow, target=None, **own) -> Consistency:
    teacher = bare_teacher(gaussian, PDE, GRID, UNITS, EdmNoise())
    chosen = DistillSettings(objective={"name": "consistency", **own}, physics_from=0.0)
    return kind(chosen, teacher, Window(GRID), None, 5, {TARGET: target or denoiser_of(closed_form)})


# ---- the map


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_boundary_condition_is_exact_whatever_the_network(dtype):
    x, clean = (torch.randn(3, 2, 4, 4, dtype=dtype, generator=torch.Generator().manual_seed(i)) for i in range(2))
    low, high = (torch.full((3,), level, dtype=dtype) for level in (BOTTOM, TOP))
    assert torch.equal(consistency_map(x, clean, low, BOTTOM, TOP), x)
    assert torch.equal(consistency_map(x, clean, high, BOTTOM, TOP), clean)  # a field is the plain call of the denoiser
    between = consistency_map(x, clean, torch.full((3,), 0.01, dtype=dtype), BOTTOM, TOP)
    torch.testing.assert_close(between, 0.2 * x + 0.8 * clean, rtol=1e-3, atol=1e-3)  # sigma_min / sigma, nearly


def test_the_networks_factor_is_that_of_the_paper():
    """sigma_data (sigma - sigma_min) / sqrt(sigma^2 + sigma_data^2), where sigma is well below sigma_max."""
    sigma = torch.logspace(-2.6, 0, 9, dtype=torch.float64)
    one, none = torch.ones(9, 1, 1, 1, dtype=torch.float64), torch.zeros(9, 1, 1, 1, dtype=torch.float64)
    scale = sigma * 0.5 / (sigma**2 + 0.25).sqrt()  # of D's raw output
    found = consistency_map(none, one, sigma, BOTTOM, 1e9).flatten() * scale
    torch.testing.assert_close(found, 0.5 * (sigma - BOTTOM) / (sigma**2 + 0.25).sqrt())


def test_levels_are_even_over_the_grid_but_its_last():
    goal = objective(levels=5)
    here, there = goal.levels(torch.arange(4000))
    grid = karras_levels(BOTTOM, TOP, 5)
    place = torch.stack([here == level for level in grid]).double().mean(dim=1)
    assert torch.allclose(place[:4], torch.full((4,), 0.25).double(), atol=0.03) and place[4] == 0
    for level, following in itertools.pairwise(grid):
        assert (there[here == level] == following).all()
    assert torch.equal(goal.levels(torch.arange(7, 9))[0], here[7:9])  # by counter, in any company


def test_noise_is_new_at_every_step_and_of_the_samples_counter():
    goal, one = objective(), batch(8)
    sigma = torch.full((8,), 2.0, dtype=torch.float64)
    again = replace(one, fresh=one.fresh + 8)
    assert not torch.equal(goal.noisy(one, sigma), goal.noisy(again, sigma))
    part = one.part(torch.tensor([2, 5]))
    assert torch.equal(goal.noisy(part, sigma[:2]), goal.noisy(one, sigma)[[2, 5]])
    assert not torch.equal(goal.noisy(one, sigma), one.target_BCYX + 2 * one.eps_BCYX)


# ---- Gaussian data


def test_the_closed_form_has_no_loss_and_no_other_map_has_none():
    """With the exact flow: f* = x sqrt((s^2 + sigma_min^2) / (s^2 + sigma^2)) is where the loss is zero."""
    network = denoiser_of(closed_form)
    loss, parts, _ = objective().losses(network, batch(), StepTimer())
    assert float(loss.max()) < 1e-12 and torch.equal(parts["consistency"], loss)
    other = objective().losses(denoiser_of(closed_form, 1.01), batch(), StepTimer())[0]
    assert float(other.min()) > 1e-9

    def wrong(x: Tensor, sigma: Tensor) -> Tensor:
        """Consistent with itself, but for the boundary condition, which `consistency_map` imposes."""
        return 1.01 * closed_form(x, sigma)

    few = objective(target=denoiser_of(wrong), levels=6)
    both = few.losses(denoiser_of(wrong), batch(), StepTimer())[0]
    lowest = few.levels(batch().fresh)[1] < 1.001 * BOTTOM
    assert float(both[~lowest].max()) < 1e-12 and float(both[lowest].min()) > 1e-9


@pytest.mark.parametrize("count", [10, 40])
def test_zero_loss_is_the_heun_map_of_the_grid(count):
    """Solved level by level from the boundary up; a field is then the last state of Heun's method, sigma_min and all."""
    grid = karras_levels(BOTTOM, TOP, count)
    one = torch.ones(1, 1, 1, 16, dtype=torch.float64)
    factor = one  # of f at each level, which is linear
    for here, there in zip(reversed(grid[:-1]), reversed(grid[1:]), strict=True):
        factor = factor * heun_step(gaussian, one, here.reshape(1), there.reshape(1))
    torch.testing.assert_close(factor, integrate(gaussian, one / TOP, grid, "heun"), rtol=1e-12, atol=1e-15)


def test_the_heun_map_comes_to_the_closed_form_at_second_order():
    z = TOP * torch.ones(1, 1, 1, 16, dtype=torch.float64)
    errors = []
    for count in (80, 160, 320):
        found = integrate(gaussian, z / TOP, karras_levels(BOTTOM, TOP, count), "heun")
        errors.append(float((found - closed_form(z, torch.tensor([TOP]))).abs().max()))
    assert all(3.5 < a / b < 4.5 for a, b in itertools.pairwise(errors)), errors


class Linear:
    """A student that multiplies each mode by a weight of its level: f = w x / sqrt(s^2 + sigma^2)."""

    def __init__(self, grid: Tensor) -> None:
        self.grid = grid
        self.weights = torch.zeros(len(grid), 16, dtype=torch.float64, requires_grad=True)

    def function(self, weights: Tensor):
        def f(x: Tensor, sigma: Tensor) -> Tensor:
            place = (sigma[:, None] - self.grid).abs().argmin(dim=1)
            size = (SPREADS**2 + sigma[:, None] ** 2).sqrt()
            return x * (weights[place] / size)[:, None, None, :]

        return f


@pytest.mark.parametrize("kind", [ExactFlow, Consistency])
def test_descent_leads_to_the_closed_form(kind):
    """A linear student, its averaged target and the objective itself; with Heun steps to the Heun map of the grid."""
    levels = 8
    grid = karras_levels(BOTTOM, TOP, levels)
    student = Linear(grid)
    average = student.weights.detach().clone()
    goal = objective(kind, denoiser_of(student.function(average)), levels=levels, rate=0.5)
    for step in range(700):
        loss = goal.losses(denoiser_of(student.function(student.weights)), batch(32, step), StepTimer())[0]
        (gradient,) = torch.autograd.grad(loss.sum() * 16, student.weights)  # of the sum over points of a mode, nearly
        with torch.no_grad():
            student.weights -= 0.05 * gradient
            average.lerp_(student.weights, 0.5)
    z = torch.ones(1, 1, 1, 16, dtype=torch.float64)
    found = consistency_map(z, denoiser_of(student.function(average))(z, grid[:1]), grid[:1], BOTTOM, TOP)
    wanted = closed_form(z, grid[:1]) if kind is ExactFlow else integrate(gaussian, z / TOP, grid, "heun")
    assert float((found / wanted - 1).abs().max()) < 1e-6


def test_physics_is_that_of_the_one_call_from_the_top():
    scales = {"l2": 4.0, "dual": 0.5, "boundary": 0.01}
    plain = objective()
    part = batch(6)
    seen = []

    def network(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        seen.append(sigma)
        return 0.7 * x / TOP

    physics = Physics(PDE, plain.window, UNITS, dict.fromkeys(NORMS, 0.2), scales)
    loss, parts, _ = replace(plain, physics=physics).losses(network, part, StepTimer())
    assert len(seen) == 1 and seen[0].shape == (12,) and (seen[0][6:] == TOP).all()
    field = plain.sample(network, part.eps_BCYX, part.condition_BP)
    torch.testing.assert_close(field, 0.7 * part.eps_BCYX)
    squares = residual_squares(PDE, GRID, UNITS.decode(field))
    torch.testing.assert_close(loss, parts["consistency"] + sum(0.2 / scales[k] * squares[k] for k in NORMS))
    torch.testing.assert_close(parts["consistency"], plain.losses(network, part, StepTimer())[0])


# ---- real networks, real shards


def _runs(rank, world, shards, folder):
    mesh = Mesh(rank, world)
    teacher = {"steps": 80, "lr": 3e-3, "global_batch": 16, "micro_batch": 16, "checkpoint_every": 1000}
    distil = {"objective": {"name": "consistency", "levels": 12}, "physics_weight": 0.0, "checkpoint_every": 1000}
    distil |= {"solver_steps": 12, "buffer_rows": 8, "reuse": 4, "steps": 90, "control": False, "lr": 3e-3}
    settings = small.settings(shards, folder, teacher=teacher, distill=distil)
    live("teacher", settings, folder, mesh)
    return live("distill", settings, folder, mesh)


@pytest.fixture(scope="module")
def trained(small_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("consistency")
    (found,) = spawn(_runs, 1, small_shards, folder, timeout=600)
    return folder, found


def test_one_call_comes_nearer_to_the_teacher_than_that_of_an_untrained_student(trained):
    folder, found = trained
    assert isinstance(found["ended"], dict) and set(found["ended"]["student"]) >= {"loss", "consistency"}
    student, teacher = load_student(folder / "student"), load_teacher(folder / "teacher")
    eps, none = teacher.eps(range(32), 7), torch.zeros(32, 0)
    ends = teacher.generate(eps, none, 18)
    distance = [
        float((one.generate(eps, none) - ends).square().mean())
        for one in (student, replace(student, denoiser=teacher.denoiser))
    ]
    assert distance[0] < 0.8 * distance[1], distance


def test_a_loaded_student_makes_the_fields_of_training(trained, small_shards):
    folder, _ = trained
    settings = small.settings(small_shards, folder, distill={"objective": {"name": "consistency", "levels": 12}})
    problem = open_problem(settings.pde, settings.data)
    teacher = open_teacher(settings, folder, problem, torch.device("cpu"))
    student = load_student(folder / "student")
    assert student.card.network_level is None and student.card.provenance.objective == "consistency"
    assert student.card.provenance.further["levels"] == 12 and student.card.provenance.further["rate"] == 0.95
    eps = open_rollout(settings, teacher).eps(torch.arange(4))
    network = build_denoiser(teacher.card.architecture, teacher.noise.sigma_data)
    network.load_state_dict(student.denoiser.state_dict())
    goal = Consistency(settings.distill, teacher, Window(problem.grid))
    with torch.no_grad():
        made = goal.sample(network.eval(), eps, torch.zeros(4, 0))
    assert torch.equal(made, student.generate(eps, torch.zeros(4, 0)))
