"""BOOT against closed forms: Gaussian data with its exact linear teacher, whose Euler map from the top is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pidscale.config import DistillSettings
from pidscale.diffusion.noise import EdmNoise, karras_levels
from pidscale.distill.objectives.boot import Boot
from pidscale.distill.objectives.physics import Physics
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS
from tests.distill.gaussians import BOTTOM, GRID, PDE, SPREADS, TOP, UNITS, batch, gaussian
from tests.small import bare_teacher


def objective(**own: object) -> Boot:
    teacher = bare_teacher(gaussian, PDE, GRID, UNITS, EdmNoise())
    chosen = DistillSettings(objective={"name": "boot", **own}, physics_from=0.0)
    return Boot(chosen, teacher, Window(GRID), None, 5)


def clean_parts(count: int) -> Tensor:
    """The factors of eps of y at each level of the grid, [levels, modes]: Euler's states from T eps + D(T eps, T)."""
    grid = karras_levels(BOTTOM, TOP, count)
    one = torch.ones(1, 1, 1, 16, dtype=torch.float64)
    x = TOP * one + gaussian(TOP * one, grid[:1])
    found = [x - TOP * one]
    for t, s in itertools.pairwise(grid):
        x = x + (s - t) * (x - gaussian(x, t.reshape(1))) / t
        found.append(x - s * one)
    return torch.cat(found).reshape(count, 16)


def network_of(weights: Tensor, seen: list[Tensor] | None = None):
    """G(eps, level) = weights[level] eps, with one weight for each level of the grid and each mode."""
    grid = karras_levels(BOTTOM, TOP, len(weights))

    def network(z: Tensor, sigma: Tensor, condition: Tensor, level: Tensor) -> Tensor:
        assert (sigma == TOP).all()
        if seen is not None:
            seen.append(level)
        place = (level[:, None] - grid).abs().argmin(dim=1)
        return z / TOP * weights[place][:, None, None, :]

    return network


@pytest.mark.parametrize("count", [6, 40])
def test_the_euler_map_of_the_grid_has_no_loss_and_no_other_map_has_none(count: int) -> None:
    weights, part = clean_parts(count), batch()
    loss, parts, _ = objective(levels=count).losses(network_of(weights), part, StepTimer())
    assert set(parts) == {"bootstrap", "top"} and float(loss.max()) < 1e-20
    for level in range(count):
        other = weights.clone()
        other[level] += 0.01
        found = objective(levels=count).losses(network_of(other), part, StepTimer())[0]
        t, s = objective(levels=count).levels(part.fresh)
        grid = karras_levels(BOTTOM, TOP, count)
        meets = (t == grid[level]) | (s == grid[level]) | torch.tensor(level == 0)
        assert (found[meets] > 1e-9).all() and (found[~meets] < 1e-20).all()


def test_the_map_comes_to_the_exact_flow_at_first_order() -> None:
    """From the state at the top, whose factor is known, to the lowest level."""
    one = torch.ones(1, 1, 1, 16, dtype=torch.float64)
    first = TOP * one + gaussian(TOP * one, torch.tensor([TOP]))
    exact = (first * ((SPREADS**2 + BOTTOM**2) / (SPREADS**2 + TOP**2)).sqrt() - BOTTOM * one).flatten()
    errors = [float((clean_parts(count)[-1] - exact).abs().max()) for count in (250, 500, 1000, 2000)]
    assert all(1.8 < a / b < 2.2 for a, b in itertools.pairwise(errors)), errors


def test_descent_leads_to_the_euler_map() -> None:
    levels = 6
    weights = torch.zeros(levels, 16, dtype=torch.float64, requires_grad=True)
    goal = objective(levels=levels)
    sizes = torch.cat([1 - karras_levels(BOTTOM, TOP, levels)[1:] / karras_levels(BOTTOM, TOP, levels)[:-1]]).square()
    rates = torch.cat([torch.ones(1, dtype=torch.float64), sizes])[:, None]  # of each level, whose errors are over d
    for step in range(400):
        loss = goal.losses(network_of(weights), batch(32, step), StepTimer())[0]
        (gradient,) = torch.autograd.grad(loss.sum() / 32 * 16, weights)
        with torch.no_grad():
            weights -= 0.4 * rates * gradient
    torch.testing.assert_close(weights.detach(), clean_parts(levels), rtol=1e-6, atol=1e-6)


def test_only_the_lower_level_and_the_top_are_moved() -> None:
    """The value one level higher is a target."""
    weights = torch.zeros(5, 16, dtype=torch.float64, requires_grad=True)
    goal, part = objective(levels=5), batch(16)
    loss = goal.losses(network_of(weights), part, StepTimer())[1]["bootstrap"]
    s = goal.levels(part.fresh)[1]
    grid = karras_levels(BOTTOM, TOP, 5)
    for sample in range(16):
        (gradient,) = torch.autograd.grad(loss[sample], weights, retain_graph=True)
        moved = gradient.abs().amax(dim=1) > 0
        assert moved.tolist() == [bool(level == s[sample]) for level in grid]


@pytest.mark.parametrize("own", [{"distance": "l1"}, {"huber": 0.1}, {"boundary": 3.0}])
def test_settings_change_the_loss(own: dict[str, object]) -> None:
    weights = torch.zeros(40, 16, dtype=torch.float64)
    plain = objective().losses(network_of(weights), batch(), StepTimer())[0]
    other = objective(**own).losses(network_of(weights), batch(), StepTimer())[0]
    assert (other > 0).all() and not torch.allclose(other, plain)


def test_physics_is_that_of_the_field_at_the_lowest_level_from_one_call_of_the_network() -> None:
    scales = {"l2": 4.0, "dual": 0.5, "boundary": 0.01}
    plain, part, seen = objective(), batch(6), []
    network = network_of(clean_parts(40) + 0.1, seen)
    physics = Physics(PDE, plain.window, UNITS, dict.fromkeys(NORMS, 0.2), scales)
    loss, parts, _ = replace(plain, physics=physics).losses(network, part, StepTimer())
    assert (
        len(seen) == 1 and seen[0].shape == (24,) and (seen[0][12:18] == TOP).all() and (seen[0][18:] == BOTTOM).all()
    )
    field = plain.sample(network, part.eps_BCYX, part.condition_BP)
    squares = residual_squares(PDE, GRID, UNITS.decode(field))
    expected = parts["bootstrap"] + parts["top"] + sum(0.2 / scales[k] * squares[k] for k in NORMS)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(parts["bootstrap"], plain.losses(network, part, StepTimer())[1]["bootstrap"])
