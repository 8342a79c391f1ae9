"""Shortcut students against closed forms: an exact linear teacher of Gaussian data is composed exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pidscale.config import DistillSettings, UserError
from pidscale.diffusion.noise import EdmNoise, VpNoise, karras_levels
from pidscale.diffusion.solvers import one_step
from pidscale.distill.objectives.base import Partner, Targets
from pidscale.distill.objectives.levels import states
from pidscale.distill.objectives.physics import Physics
from pidscale.distill.objectives.shortcut import TARGET, Shortcut, ShortcutSettings
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS
from tests.distill.gaussians import BOTTOM, GRID, PDE, TOP, UNITS, batch, gaussian
from tests.small import bare_teacher

COUNT = 8


def euler_factors(begin: int, end: int) -> Tensor:
    """The factors of the modes [16] from one point of the grid to another by its Euler steps."""
    grid = karras_levels(BOTTOM, TOP, COUNT + 1)
    x = torch.ones(1, 1, 1, 16, dtype=torch.float64)
    for here, there in zip(grid[begin:end], grid[begin + 1 : end + 1], strict=True):
        x = x + (there - here) * (x - gaussian(x, here.reshape(1))) / here
    return x.flatten()


class Linear:
    """G(x, a, c) = weights[a, c] x, with a weight for each pair of points of the grid and each mode."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, begin: Tensor, _: Tensor, end: Tensor) -> Tensor:
        self.seen.append((begin, end))
        grid = karras_levels(BOTTOM, TOP, COUNT + 1)
        a, c = ((level[:, None] - grid).abs().argmin(dim=1) for level in (begin, end))
        return x * self.weights[a, c][:, None, None, :]


def exact_weights() -> Tensor:
    """Those of the student that composes the Euler steps, for pairs of points that a step may join; nan elsewhere."""
    grid = karras_levels(BOTTOM, TOP, COUNT + 1)
    weights = torch.full((COUNT + 1, COUNT + 1, 16), torch.nan, dtype=torch.float64)
    for size in (2, 4, 8):
        for a in range(0, COUNT, size):
            ratio = grid[a + size] / grid[a]
            weights[a, a + size] = (euler_factors(a, a + size) - ratio) / (1 - ratio)
    return weights


def objective(target: Linear | None = None, **own: object) -> Shortcut:
    teacher = bare_teacher(gaussian, PDE, GRID, UNITS, EdmNoise())
    chosen = DistillSettings(objective={"name": "shortcut", "solver_steps": COUNT, **own}, physics_from=0.0)
    return Shortcut(chosen, teacher, Window(GRID), None, 5, {} if target is None else {TARGET: target})


@pytest.mark.parametrize("solver_steps", [3, 12, 1023])
def test_a_number_of_steps_that_cannot_be_halved_to_one_is_refused(solver_steps: int) -> None:
    with pytest.raises(UserError, match=f"solver_steps={solver_steps}: expected a power of two"):
        ShortcutSettings(solver_steps=solver_steps)


def test_steps_have_every_size_as_often_and_every_place_of_a_size() -> None:
    goal, fresh = objective(), torch.arange(3000)
    grid = karras_levels(BOTTOM, TOP, COUNT + 1)
    steps = goal.steps(fresh)
    a, b, c = ((level[:, None] - grid).abs().argmin(dim=1) for level in steps[:3])
    assert torch.equal(c - b, b - a) and torch.equal(steps.smallest, c - a == 2)
    for size in (2, 4, 8):
        of = a[c - a == size]
        assert 0.3 < len(of) / 3000 < 0.37
        counts = torch.bincount(of, minlength=COUNT)
        assert (counts[::size] > 0.8 * len(of) / (COUNT // size)).all() and counts.sum() == counts[::size].sum()
    part = goal.steps(torch.arange(7, 9))
    assert all(torch.equal(few, many[7:9]) for few, many in zip(part, goal.steps(torch.arange(12)), strict=True))


def test_the_composition_of_euler_steps_has_no_loss_and_no_other_map_has_none() -> None:
    right, part = exact_weights(), batch()
    loss, parts, _ = objective(Linear(right)).losses(Linear(right), part, StepTimer())
    assert set(parts) == {"halving"} and float(loss.max()) < 1e-18
    steps = objective().steps(part.fresh)
    grid = karras_levels(BOTTOM, TOP, COUNT + 1)
    for a, c in ((0, 8), (0, 4), (4, 8), (2, 4), (6, 8)):
        wrong = right.clone()
        wrong[a, c] += 0.01
        found = objective(Linear(right)).losses(Linear(wrong), part, StepTimer())[0]
        taken = torch.isclose(steps.begin, grid[a]) & torch.isclose(steps.end, grid[c])
        assert taken.any() and (found[taken] > 1e-9).all() and (found[~taken] < 1e-18).all()


def test_a_field_is_the_composition_of_the_teachers_euler_steps() -> None:
    goal = objective()
    eps = batch(4).eps_BCYX
    found = goal.sample(Linear(exact_weights()), eps, torch.zeros(4, 0))
    ratio = BOTTOM / TOP
    ended = ratio * TOP * eps + (1 - ratio) * found
    torch.testing.assert_close(ended, TOP * eps * euler_factors(0, COUNT), rtol=1e-9, atol=1e-9)
    assert goal.partners(goal.own) == (Partner(TARGET, 0.95),) and goal.targets(goal.own) is Targets.ENDPOINTS


def test_descent_leads_to_the_composition() -> None:
    """From nothing, with the student as its own target, as in training with rate 0."""
    right = exact_weights()
    pairs = ~right[..., 0].isnan()
    weights = torch.zeros_like(right, requires_grad=True)
    held: list[Tensor] = [weights.detach()]
    goal = objective(Linear(held[0]))
    power: Tensor = torch.full((COUNT + 1, COUNT + 1, 16), 1e-30, dtype=torch.float64)  # of each weight's gradient
    for step in range(80):
        loss = goal.losses(Linear(weights), batch(48, step), StepTimer())[0]
        (gradient,) = torch.autograd.grad(loss.sum(), weights)
        curvature = torch.autograd.grad(goal_curvature(goal, weights, step), weights)[0]
        power = torch.maximum(power, curvature)
        with torch.no_grad():
            weights -= 0.9 * gradient / power
    torch.testing.assert_close(weights.detach()[pairs], right[pairs], rtol=1e-5, atol=1e-5)


def goal_curvature(goal: Shortcut, weights: Tensor, step: int) -> Tensor:
    """A sum whose gradient is the second derivative of the summed loss by each weight."""
    part = batch(48, step)
    steps = goal.steps(part.fresh)
    x = states(part, steps.begin, goal.window, TOP, goal.seed, "distill/shortcut")
    grid = karras_levels(BOTTOM, TOP, COUNT + 1)
    a, c = ((level[:, None] - grid).abs().argmin(dim=1) for level in (steps.begin, steps.end))
    scale = 2 * (goal.teacher.noise.sigma_data / steps.begin).square().clamp_min(1.0) / goal.points
    return (scale[:, None] * x.square().sum(dim=(1, 2)) * weights[a, c]).sum()


@pytest.mark.parametrize("own", [{"distance": "l1"}, {"huber": 0.1}])
def test_settings_change_the_loss(own: dict[str, object]) -> None:
    zero = Linear(torch.zeros(COUNT + 1, COUNT + 1, 16, dtype=torch.float64))
    target = Linear(exact_weights())
    plain = objective(target).losses(zero, batch(), StepTimer())[0]
    other = objective(target, **own).losses(zero, batch(), StepTimer())[0]
    assert (other > 0).all() and not torch.allclose(other, plain)


def test_physics_is_that_of_the_one_call_from_the_top_to_the_lowest_level() -> None:
    scales = {"l2": 4.0, "dual": 0.5, "boundary": 0.01}
    network = Linear(exact_weights().nan_to_num() + 0.1)
    plain, part = objective(network), batch(6)
    physics = Physics(PDE, plain.window, UNITS, dict.fromkeys(NORMS, 0.2), scales)
    network.seen.clear()
    loss, parts, _ = replace(plain, physics=physics).losses(network, part, StepTimer())
    begin, end = network.seen[0]  # later calls are those of the target
    assert begin.shape == (12,) and (begin[6:] == TOP).all() and (end[6:] == BOTTOM).all()
    field = one_step(lambda x, s, level: network(x, s, torch.zeros(6, 0), level), part.eps_BCYX, TOP, BOTTOM)
    squares = residual_squares(PDE, GRID, UNITS.decode(field))
    torch.testing.assert_close(loss, parts["halving"] + sum(0.2 / scales[k] * squares[k] for k in NORMS))


def test_noise_alone_is_found_at_a_highest_level_that_is_rounded() -> None:
    noise = VpNoise(sigma_max=53.7)
    part = batch(4)
    top = noise.levels(16)[:1].float().expand(4)
    below = states(part, torch.nextafter(top, torch.zeros(4)), Window(GRID), noise.sigma_max, 0, "x")
    for found in (below, states(part, top, Window(GRID), noise.sigma_max, 0, "x")):
        assert torch.equal(found, noise.sigma_max * part.eps_BCYX)
