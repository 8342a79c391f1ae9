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
from pidscale.diffusion.solvers import integrate
from pidscale.distill.endpoints.rollout import open_teacher
from pidscale.generator.load import load_network, load_student, load_teacher
from pidscale.generator.regression import Regression
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.pde.base import solution_mask
from pidscale.pde.residuals import residual_mean_abs, residual_squares
from pidscale.teacher.objectives import OBJECTIVES
from pidscale.teacher.objectives.base import MicroBatch, TeacherObjective
from pidscale.teacher.objectives.pidm import step_variance
from pidscale.teacher.objectives.pirf import PirfSettings
from pidscale.teacher.preflight import check_objective
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


def batch(problem: Problem, size: int = 5, progress: float = 0.0) -> MicroBatch:
    draws = torch.Generator().manual_seed(0)
    x = problem.normaliser.encode(problem.samples("train", size).fields).double()
    eps = torch.randn(x.shape, dtype=torch.float64, generator=draws)
    sigma = torch.tensor([0.01, 0.1, 0.5, 2.0, 40.0][:size], dtype=torch.float64)
    return MicroBatch(x, sigma, eps, torch.zeros(size, 0), progress)


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
    own = batch(problem)
    x, sigma, eps = own[:3]
    network = Scaled(0.9)
    goal = objective(problem, name="pidm", weight=0.02, steps=50)
    plain, physics = goal.losses(network, own)
    torch.testing.assert_close(plain, denoising_errors(network, EdmNoise(), x, sigma, eps))
    fields = problem.normaliser.decode(network(x + sigma.reshape(-1, 1, 1, 1) * eps, sigma))
    squares = residual_squares(problem.pde, problem.grid, fields)
    wanted = 0.02 * (squares["l2"] + squares["boundary"]) / (2 * step_variance(EdmNoise(), sigma, 50))
    torch.testing.assert_close(physics, wanted)
    torch.testing.assert_close(
        goal.losses(network, own)[1] * 3, objective(problem, name="pidm", weight=0.06, steps=50).losses(network, own)[1]
    )


def test_gradients_of_the_residual_equal_finite_differences(problem: Problem) -> None:
    for own in (
        {"name": "pidm", "weight": 0.02},
        {"name": "pidm", "weight": 0.02, "estimate_steps": 3},
        {"name": "pbfm", "unroll": 4},
        {"name": "pirf", "steps": 3, "through": 3},
    ):
        goal = objective(problem, **own)

        def loss(weight: Tensor, goal: TeacherObjective[Any] = goal) -> Tensor:
            network = Scaled(0.9)
            network.weight = weight
            return goal.losses(network, batch(problem, progress=0.9))[-1][2:]

        assert torch.autograd.gradcheck(loss, torch.tensor(0.9, dtype=torch.float64, requires_grad=True)), own


def test_a_truth_that_is_denoised_exactly_has_no_more_than_its_floor(problem: Problem) -> None:
    own = batch(problem)

    def exact(noisy: Tensor, level: Tensor) -> Tensor:
        return own.x_BCYX

    for steps in (1, 3):
        plain, physics = objective(problem, name="pidm", weight=1.0, estimate_steps=steps).losses(exact, own)
        assert (
            float(plain.max()) == 0 and float((physics * 2 * step_variance(EdmNoise(), own.sigma_B, 100)).max()) < 1e-6
        )
    plain, physics = objective(problem, name="pbfm").losses(exact, own._replace(progress=0.9))
    assert float(plain.max()) == 0 and float(physics.max()) < 1e-4  # the mean of absolute values in float32's rounding
    assert float(objective(problem, name="pirf").losses(exact, own)[0].max()) < 1e-6
    assert float(objective(problem, name="regression").losses(exact, own)[0].max()) == 0


def _runs(rank: int, world: int, shards: Path, folder: Path) -> dict[str, Any]:
    mesh = Mesh(rank, world)
    found = {}
    chosen = {
        "denoising": {"name": "denoising"},
        "none": {"name": "pidm", "weight": 0.0},
        "no pbfm": {"name": "pbfm", "weight": 0.0},
        "regression": {"name": "regression"},
        "sample": {"name": "pidm", "estimate_steps": 3},
        "pbfm": {"name": "pbfm"},
        "pidm": {"name": "pidm"},
    }
    for name, own in chosen.items():
        settings = small.settings(shards, folder, teacher={"objective": own})
        found[name] = live("teacher", settings, folder / name, mesh)["ended"]
    for name in ("pidm", "pbfm", "regression"):
        settings = small.settings(shards, folder, teacher={"objective": {"name": name}})
        live("teacher", settings, folder / f"{name}-broken", mesh, stop_at=6)
        found[f"{name}-again"] = live("teacher", settings, folder / f"{name}-broken", mesh)["ended"]
    start = {"start": str(folder / "denoising" / "teacher"), "lr": 1e-4}
    settings = small.settings(shards, folder, teacher={"objective": {"name": "pirf", "steps": 4}, **start})
    found["pirf"] = live("teacher", settings, folder / "pirf", mesh)["ended"]
    return found


@pytest.fixture(scope="module")
def runs(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("runs")
    return folder, spawn(_runs, 2, small_shards, folder, timeout=600)


def test_without_weight_they_are_plain_training_to_the_bit_and_with_one_they_resume_to_the_bit(
    runs: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, ranks = runs
    for found in ranks:
        size = {name: one["residual_l2"] for name, one in found.items()}
        assert size["none"] == size["no pbfm"] == size["denoising"]
        for name in ("pidm", "pbfm", "regression"):
            assert size[name] == size[f"{name}-again"] != size["denoising"]
        assert len({size[name] for name in ("denoising", "pidm", "sample", "pbfm", "regression", "pirf")}) == 6
    weights = {one.name: weights_of(one / "teacher") for one in folder.iterdir()}
    for first, second in (
        ("denoising", "none"),
        ("denoising", "no pbfm"),
        *((name, f"{name}-broken") for name in ("pidm", "pbfm", "regression")),
    ):
        assert all(torch.equal(values, weights[second][name]) for name, values in weights[first].items()), second
    for other in ("pidm", "sample", "pbfm", "regression", "pirf"):
        assert any(not torch.equal(values, weights[other][name]) for name, values in weights["denoising"].items())


def test_a_regression_answers_forward_problems_alone(
    small_shards: Path, runs: tuple[Path, list[dict[str, Any]]], problem: Problem
) -> None:
    folder = runs[0] / "regression" / "teacher"
    network = load_network(folder)
    assert isinstance(network, Regression) and network.card.kind == "regression"
    truth = problem.samples("test", 3)
    found = network.predict(truth.fields, truth.params)
    unknown = solution_mask(problem.pde, problem.grid)
    torch.testing.assert_close(found[:, ~unknown], truth.fields[:, ~unknown], rtol=1e-5, atol=1e-6)
    other = truth.fields.masked_fill(unknown, 5.0)  # the solution is not looked at
    torch.testing.assert_close(network.predict(other, truth.params), found, rtol=1e-5, atol=1e-6)
    for load, words in ((load_teacher, "expected a teacher"), (load_student, "expected a student")):
        with pytest.raises(UserError, match=f"holds a regression, {words}; it answers the forward problems"):
            load(folder)
    with pytest.raises(UserError, match="a regression makes no samples"):
        network.generate(truth.fields, truth.params)
    with pytest.raises(UserError, match=r"holds a regression, expected a teacher; set distill\.teacher"):
        s = small.settings(small_shards, runs[0], distill={"teacher": str(folder)})
        open_teacher(s, runs[0], problem, None)


def test_what_an_objective_needs_is_asked_before_anything_starts(small_shards: Path, tmp_path: Path) -> None:
    for own, cluster, words in (
        ({"name": "pirf"}, {}, r"teacher.objective.name=pirf: goes on from a finished teacher; give .*teacher.start="),
        ({"name": "pbfm"}, {"zero_stage": 3}, r"teacher.objective.name=pbfm: .*set cluster.zero_stage to 2 or less"),
    ):
        with pytest.raises(UserError, match=words):
            check_objective(small.settings(small_shards, tmp_path, teacher={"objective": own}, cluster=cluster))
    check_objective(small.settings(small_shards, tmp_path, teacher={"objective": {"name": "pbfm", "weight": 0.0}}))
    with pytest.raises(UserError, match=r"teacher.objective.through=4: more than the teacher.objective.steps=3"):
        PirfSettings(steps=3, through=4)


def test_the_sample_that_pbfm_unrolls_is_euler_in_the_time_of_the_flow(problem: Problem) -> None:
    """x_t = (1 - t) eps + t x1 and the velocity v = (x1 - x_t) / (1 - t), as the paper writes them."""
    own = batch(problem, progress=0.6)
    network = Scaled(0.9)
    _, physics = objective(problem, name="pbfm", unroll=4).losses(network, own)
    time = 1 / (1 + own.sigma_B).reshape(-1, 1, 1, 1)
    state = time * own.noisy_BCYX
    steps = 3  # of four, after more than half of the training
    width = (1 - time) / steps
    for _ in range(steps):
        sigma = ((1 - time) / time).flatten()
        state = state + width * (network(state / time, sigma) - state) / (1 - time)
        time = time + width
    fields = problem.normaliser.decode(state)
    wanted = torch.stack(
        [residual_mean_abs(problem.pde, problem.grid, one[None], None) * torch.ones(()) for one in fields.detach()]
    )
    edge = torch.tensor([float(v) for v in _edges(problem, fields.detach())])
    torch.testing.assert_close(
        physics.detach().float(), ((wanted + edge) / (1 + own.sigma_B)).float(), rtol=1e-4, atol=0
    )


def _edges(problem: Problem, fields: Tensor) -> Tensor:
    term = problem.pde.residual(Window(problem.grid), fields, None).get("boundary")
    return torch.zeros(len(fields)) if term is None else term.values.abs().flatten(1).mean(dim=1) / term.scale


def test_the_number_of_unrolled_steps_grows_with_the_training(problem: Problem) -> None:
    goal = objective(problem, name="pbfm", unroll=4)
    calls = []

    def counted(noisy: Tensor, sigma: Tensor) -> Tensor:
        calls[-1] += 1
        return 0.5 * noisy

    for progress in (0.0, 0.24, 0.26, 0.5, 0.75, 0.999):
        calls.append(0)
        goal.losses(counted, batch(problem, progress=progress))
    assert calls == [1, 1, 2, 3, 4, 4]


def test_pirf_is_the_residual_of_the_sample_and_its_gradient_ends_where_it_says(problem: Problem) -> None:
    own = batch(problem)
    wanted = {}
    for through in (1, 4):
        network = Scaled(0.9)
        loss = objective(problem, name="pirf", steps=4, through=through).losses(network, own)[0].sum()
        loss.backward()
        wanted[through] = float(loss), float(network.weight.grad)
    assert wanted[1][0] == pytest.approx(wanted[4][0])
    network = Scaled(0.9)
    x = integrate(network, own.eps_BCYX, EdmNoise().levels(4), "euler")
    squares = residual_squares(problem.pde, problem.grid, problem.normaliser.decode(x))
    assert wanted[4][0] == pytest.approx(float((squares["l2"] + squares["boundary"]).sum()), rel=1e-6)
    (squares["l2"] + squares["boundary"]).sum().backward()
    assert wanted[4][1] == pytest.approx(float(network.weight.grad), rel=1e-6) and wanted[1][1] != wanted[4][1]


def test_an_unknown_objective_is_one_line(problem: Problem) -> None:
    with pytest.raises(
        UserError, match=r"objective.name='pidn': expected one of denoising, pidm, pbfm, pirf, regression"
    ):
        objective(problem, name="pidn")
    with pytest.raises(UserError, match=r"teacher.objective.wait: unknown setting; did you mean 'weight'"):
        _ = objective(problem, name="pidm", wait=1).own
    assert set(OBJECTIVES) == {"denoising", "pidm", "pbfm", "pirf", "regression"}
