"""Progressive distillation against closed forms: an exact linear teacher of Gaussian data is met exactly in every round."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pidscale.config import DistillSettings, UserError
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.solvers import integrate, one_step
from pidscale.distill.objectives.base import Targets
from pidscale.distill.objectives.physics import Physics
from pidscale.distill.objectives.progressive import Progressive, ProgressiveSettings
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS
from tests.distill.gaussians import GRID, PDE, TOP, UNITS, batch, gaussian
from tests.small import bare_teacher

STEPS = 600
BEGINS = {1: [0], 2: [0, 300], 3: [0, 120, 360], 4: [0, 100, 200, 400]}  # by the number of halvings


def objective(solver_steps: int = 16, **own: object) -> Progressive:
    teacher = bare_teacher(gaussian, PDE, GRID, UNITS, EdmNoise())
    chosen = DistillSettings(
        objective={"name": "progressive", "solver_steps": solver_steps, **own}, steps=STEPS, physics_from=0.0
    )
    return Progressive(chosen, teacher, Window(GRID), None, 5)


def exact_student(goal: Progressive, step: int) -> Denoiser:
    """The denoiser of a round's student that is right at every level of its grid: linear, as its teacher is."""
    steps = goal.teacher.noise.levels(goal.own.solver_steps)
    grid = steps[:: 2 ** sum(step >= begins for begins in begins_of(goal)[1:])]
    one = torch.ones(1, 1, 1, 16, dtype=torch.float64)
    factors = {}
    for place in range(0, len(grid) - 1, 2):
        three = tuple(level.reshape(1) for level in grid[place : place + 3])
        factors[float(grid[place])] = goal.halved(one, three, torch.zeros(1, 0))

    def network(x: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
        return x * torch.cat([factors[float(level)] for level in sigma])

    return network


def begins_of(goal: Progressive) -> list[int]:
    return [int(one.begins * STEPS) for one in goal.rounds(goal.own)]


@pytest.mark.parametrize("halvings", BEGINS)
def test_the_last_two_rounds_are_twice_as_long(halvings: int) -> None:
    assert begins_of(objective(2**halvings)) == BEGINS[halvings]


@pytest.mark.parametrize("solver_steps", [3, 12, 1023])
def test_a_number_of_steps_that_cannot_be_halved_to_one_is_refused(solver_steps: int) -> None:
    with pytest.raises(UserError, match=f"solver_steps={solver_steps}: expected a power of two"):
        ProgressiveSettings(solver_steps=solver_steps)


def test_one_step_of_the_target_is_two_of_the_teacher() -> None:
    goal = objective(8)
    x = torch.randn(3, 2, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = goal.teacher.noise.levels(8)
    for place in range(0, 8, 2):
        a, b, c = grid[place : place + 3]
        after_one = x + (b - a) * (x - gaussian(x, a.reshape(1))) / a
        after_two = after_one + (c - b) * (after_one - gaussian(after_one, b.reshape(1))) / b
        clean = goal.halved(x, tuple(level.expand(3) for level in (a, b, c)), torch.zeros(3, 0))
        torch.testing.assert_close(x + (c - a) * (x - clean) / a, after_two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver_steps", [2, 8, 16])
def test_a_linear_teacher_is_met_exactly_in_each_round(solver_steps: int) -> None:
    """Each student has no loss and teaches the next round; the last is the first teacher's sampler in one call."""
    goal = first = objective(solver_steps)
    for begins in begins_of(first):
        student = exact_student(goal, begins)
        part = replace(batch(), step=begins)
        loss, parts, _ = goal.losses(student, part, StepTimer())
        assert set(parts) == {"halving"} and float(loss.max()) < 1e-18

        def wrong(x: Tensor, sigma: Tensor, *_: Tensor, right: Denoiser = student) -> Tensor:
            return 1.01 * right(x, sigma)

        assert float(goal.losses(wrong, part, StepTimer())[0].min()) > 1e-9
        goal = goal.taught_by(student)
    eps = batch(4).eps_BCYX
    wanted = integrate(gaussian, eps, first.teacher.noise.levels(solver_steps), "euler")
    torch.testing.assert_close(one_step(goal.teacher.denoiser, eps, TOP), wanted, rtol=1e-9, atol=1e-9)


def test_a_round_has_every_second_point_of_the_one_before() -> None:
    goal, fresh = objective(), torch.arange(400)
    grid = goal.teacher.noise.levels(16)
    for number, begins in enumerate(begins_of(goal)):
        three = torch.stack(goal.levels(begins, fresh), dim=1)
        wanted = {
            tuple(grid[i : i + 2 ** (number + 1) + 1 : 2**number].tolist()) for i in range(0, 16, 2 ** (number + 1))
        }
        assert {tuple(levels) for levels in three.tolist()} == wanted
        if begins:
            assert len(set(goal.levels(begins - 1, fresh)[0].tolist())) == 2 * len(wanted)
    assert torch.equal(goal.levels(0, torch.arange(7, 9))[0], goal.levels(0, torch.arange(12))[0][7:9])  # by counter


def test_states_are_noisy_endpoints_and_noise_alone_at_the_top() -> None:
    goal, one = objective(), batch(8)
    sigma = torch.tensor([2.0, TOP] * 4, dtype=torch.float64)
    found = goal.states(one, sigma)
    assert torch.equal(found[1::2], TOP * one.eps_BCYX[1::2])
    noise = (found - one.target_BCYX)[::2] / 2.0
    assert 0.95 < float(noise.square().mean()) < 1.05 and not torch.equal(noise, one.eps_BCYX[::2])
    again = replace(one, fresh=one.fresh + 8)
    assert not torch.equal(goal.states(again, sigma)[::2], found[::2])
    assert goal.targets(goal.own) is Targets.ENDPOINTS


def test_physics_is_that_of_the_one_call_from_the_top() -> None:
    scales = {"l2": 4.0, "dual": 0.5, "boundary": 0.01}
    plain, part, seen = objective(), batch(6), []

    def network(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        seen.append(sigma)
        return 0.7 * x / TOP

    physics = Physics(PDE, plain.window, UNITS, dict.fromkeys(NORMS, 0.2), scales)
    loss, parts, _ = replace(plain, physics=physics).losses(network, part, StepTimer())
    assert len(seen) == 1 and seen[0].shape == (12,) and (seen[0][6:] == TOP).all()
    squares = residual_squares(PDE, GRID, UNITS.decode(0.7 * part.eps_BCYX))
    torch.testing.assert_close(loss, parts["halving"] + sum(0.2 / scales[k] * squares[k] for k in NORMS))
