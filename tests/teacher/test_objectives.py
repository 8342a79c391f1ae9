"""Objectives of a teacher against closed forms and against plain denoising."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.dataset.problem import Problem, open_problem
from pidscale.diffusion.noise import EdmNoise, karras_levels
from pidscale.diffusion.objective import denoising_errors
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.residuals import residual_squares
from pidscale.teacher.objectives import OBJECTIVES
from pidscale.teacher.objectives.base import TeacherObjective
from pidscale.teacher.objectives.pidm import step_variance
from tests import small
from tests.distill.test_loop import live, weights_of
from tests.ranks import spawn


@pytest.fixture(scope="module")
def problem(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    s = small.settings(small_shards, tmp_path_factory.mktemp("objectives"))
    return open_problem(s.pde, s.data)


def objective(problem: Problem, **own: Any) -> TeacherObjective[Any]:
    settings = replace(small.settings(Path(problem.data.path), Path("x")).teacher, objective=own)
    made: TeacherObjective[Any] = settings.needs(settings, problem, EdmNoise(), Window(problem.grid))
    return made


def batch(problem: Problem, size: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = problem.normaliser.encode(problem.samples("train", size).fields).double()
    eps = torch.randn(x.shape, dtype=torch.float64, generator=draws)
    return x, torch.tensor([0.01, 0.1, 0.5, 2.0, 40.0][:size], dtype=torch.float64), eps, torch.zeros(size, 0)


class Scaled:
    """A denoiser with one weight."""

    def __init__(self, weight: float) -> None:
        self.weight = torch.tensor(weight, dtype=torch.float64, requires_grad=True)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.weight * x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def test_the_variance_is_that_of_a_step_of_the_grid() -> None:
    """Of the state at s given the state at sigma and the clean field: a product of two normal densities."""
    noise, steps = EdmNoise(), 100
    grid = karras_levels(noise.sigma_min, noise.sigma_max, steps)
    wanted = 1 / (1 / grid[1:] ** 2 + 1 / (grid[:-1] ** 2 - grid[1:] ** 2))
    torch.testing.assert_close(step_variance(noise, grid[:-1], steps), wanted, rtol=1e-9, atol=0)
    lowest = step_variance(noise, torch.tensor([noise.sigma_min, 1e-6]), steps)
    torch.testing.assert_close(lowest.double(), wanted[-1:].expand(2), rtol=1e-5, atol=0)


def test_pidm_adds_the_residual_of_the_denoised_field(problem: Problem) -> None:
    x, sigma, eps, params = batch(problem)
    network = Scaled(0.9)
    goal = objective(problem, name="pidm", weight=0.02, steps=50)
    plain, physics = goal.losses(network, x, sigma, eps, params)
    torch.testing.assert_close(plain, denoising_errors(network, EdmNoise(), x, sigma, eps))
    fields = problem.normaliser.decode(network(x + sigma.reshape(-1, 1, 1, 1) * eps, sigma))
    squares = residual_squares(problem.pde, problem.grid, fields)
    wanted = 0.02 * (squares["l2"] + squares["boundary"]) / (2 * step_variance(EdmNoise(), sigma, 50))
    torch.testing.assert_close(physics, wanted)
    torch.testing.assert_close(
        goal.losses(network, x, sigma, eps, params)[1] * 3,
        objective(problem, name="pidm", weight=0.06, steps=50).losses(network, x, sigma, eps, params)[1],
    )


def test_gradients_of_the_residual_equal_finite_differences(problem: Problem) -> None:
    x, sigma, eps, params = batch(problem)
    goal = objective(problem, name="pidm", weight=0.02)

    def loss(weight: Tensor) -> Tensor:
        network = Scaled(0.9)
        network.weight = weight
        return goal.losses(network, x, sigma, eps, params)[1][2:]

    assert torch.autograd.gradcheck(loss, torch.tensor(0.9, dtype=torch.float64, requires_grad=True))


def test_a_truth_that_is_denoised_exactly_has_no_more_than_its_floor(problem: Problem) -> None:
    x, sigma, eps, params = batch(problem)

    def exact(noisy: Tensor, level: Tensor) -> Tensor:
        return x

    plain, physics = objective(problem, name="pidm", weight=1.0).losses(exact, x, sigma, eps, params)
    assert float(plain.max()) == 0 and float((physics * 2 * step_variance(EdmNoise(), sigma, 100)).max()) < 1e-6


def _runs(rank: int, world: int, shards: Path, folder: Path) -> dict[str, Any]:
    mesh = Mesh(rank, world)
    found = {}
    chosen = {"denoising": {"name": "denoising"}, "none": {"name": "pidm", "weight": 0.0}, "pidm": {"name": "pidm"}}
    for name, own in chosen.items():
        settings = small.settings(shards, folder, teacher={"objective": own})
        found[name] = live("teacher", settings, folder / name, mesh)["ended"]
    live("teacher", settings, folder / "broken", mesh, stop_at=6)
    found["again"] = live("teacher", settings, folder / "broken", mesh)["ended"]
    return found


def test_without_weight_it_is_plain_training_to_the_bit_and_with_one_it_resumes_to_the_bit(
    small_shards: Path, tmp_path: Path
) -> None:
    for found in spawn(_runs, 2, small_shards, tmp_path, timeout=300):
        size = {name: one["residual_l2"] for name, one in found.items()}
        assert size["none"] == size["denoising"] != size["pidm"] == size["again"]
    weights = {name: weights_of(tmp_path / name / "teacher") for name in ("denoising", "none", "pidm", "broken")}
    for name, values in weights["denoising"].items():
        assert torch.equal(values, weights["none"][name]) and torch.equal(
            weights["pidm"][name], weights["broken"][name]
        )
    assert any(not torch.equal(values, weights["pidm"][name]) for name, values in weights["denoising"].items())


def test_an_unknown_objective_is_one_line(problem: Problem) -> None:
    with pytest.raises(UserError, match=r"teacher.objective.name='pidn': expected one of denoising, pidm"):
        objective(problem, name="pidn")
    with pytest.raises(UserError, match=r"teacher.objective.wait: unknown setting; did you mean 'weight'"):
        _ = objective(problem, name="pidm", wait=1).own
    assert set(OBJECTIVES) == {"denoising", "pidm"}
