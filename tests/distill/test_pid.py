"""PID against closed forms: Gaussian data with its exact linear teacher, whose flow, Euler map and residual are known."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pidscale.config import DistillSettings
from pidscale.diffusion.noise import EdmNoise, karras_levels
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.solvers import integrate
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.physics import Physics
from pidscale.distill.objectives.pid import Pid, trajectory_residual
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.pde.darcy import Darcy
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS
from tests.small import bare_teacher

SPREADS = torch.tensor([0.1, 0.5, 2.0, 8.0], dtype=torch.float64).reshape(1, 1, 1, 4)  # of each of four modes
TOP, BOTTOM = 80.0, 0.002
PDE = Darcy()


def gaussian(x: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
    """The exact denoiser of data whose modes are N(0, SPREADS^2)."""
    s = sigma.double().reshape(-1, 1, 1, 1)
    return SPREADS**2 / (SPREADS**2 + s**2) * x


def flow(z: Tensor, t: Tensor) -> Tensor:
    """The exact state at a level, from z at TOP."""
    return z * ((SPREADS**2 + t.reshape(-1, 1, 1, 1) ** 2) / (SPREADS**2 + TOP**2)).sqrt()


def euler(z: Tensor, grid: Tensor) -> list[Tensor]:
    """States of Euler's method at every level of a grid."""
    states = [z]
    for t, s in itertools.pairwise(grid):
        states.append(states[-1] + (s - t) * (states[-1] - gaussian(states[-1], t.reshape(1))) / t)
    return states


def mixed(x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    """G of a state x = (t / T) z + (1 - t / T) G below the top."""
    return (x - t / TOP * z) / (1 - t / TOP)


@pytest.mark.parametrize("count", [10, 50, 250])
def test_zero_loss_is_the_euler_map_of_the_grid(count: int) -> None:
    """Both sides agree at every index for Euler's states, whatever G is at the top; and they are no one else's states."""
    z = TOP * torch.linspace(-2, 2, 4, dtype=torch.float64).reshape(1, 1, 1, 4)
    grid = karras_levels(BOTTOM, TOP, count)
    states = euler(z, grid)
    values = [torch.full_like(z, 0.7), *(mixed(x, z, t) for x, t in zip(states[1:], grid[1:], strict=True))]
    for i in range(count - 1):
        t, s = grid[i].reshape(1), grid[i + 1].reshape(1)
        left, right = trajectory_residual(z, values[i], values[i + 1], t, s, TOP, gaussian)
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-10)
        other = trajectory_residual(z, values[i], values[i + 1] + 0.1, t, s, TOP, gaussian)
        assert float((other[0] - other[1]).abs().min()) > 0.05
    # what is sampled, G at the lowest level, is the Euler map from the top to there, without the noise that x still holds
    levels = torch.cat([grid, grid.new_zeros(1)])
    to_zero = integrate(gaussian, z / TOP, levels, "euler")
    last = integrate(gaussian, z / TOP, grid, "euler")
    torch.testing.assert_close(values[-1], mixed(last, z, grid[-1]), rtol=1e-10, atol=1e-10)
    assert float((values[-1] - to_zero).abs().max()) < 0.02


def test_the_euler_map_comes_to_the_exact_one_at_first_order() -> None:
    z = TOP * torch.ones(1, 1, 1, 4, dtype=torch.float64)
    errors = []
    for count in (250, 500, 1000, 2000):
        grid = karras_levels(BOTTOM, TOP, count)
        errors.append(float((euler(z, grid)[-1] - flow(z, grid[-1:])).abs().max()))
    assert all(1.8 < a / b < 2.2 for a, b in itertools.pairwise(errors)), errors


def test_the_exact_flow_has_a_residual_of_first_order() -> None:
    """The residual of the true trajectory falls with the distance of neighbours."""
    z = TOP * torch.ones(1, 1, 1, 4, dtype=torch.float64)
    found = []
    for count in (250, 500, 1000):
        grid = karras_levels(BOTTOM, TOP, count)
        t, s = grid[count // 2].reshape(1), grid[count // 2 + 1].reshape(1)
        here, ahead = (mixed(flow(z, level), z, level) for level in (t, s))
        left, right = trajectory_residual(z, here, ahead, t, s, TOP, gaussian)
        found.append(float((left - right).abs().max()))
    assert all(1.7 < a / b < 2.3 for a, b in itertools.pairwise(found)), found


def test_noise_cancels_from_the_residual() -> None:
    """The form of the paper, with states in place of G: equal in float64; in float32 it loses digits that ours keeps."""
    generator = torch.Generator().manual_seed(0)
    z, here, ahead = (torch.randn(2, 1, 8, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    z, t, s = TOP * z, torch.tensor([3.0, 0.01]).double(), torch.tensor([2.9, 0.0095]).double()

    def papers(z: Tensor, here: Tensor, ahead: Tensor, t: Tensor, s: Tensor) -> Tensor:
        t, s = t.reshape(-1, 1, 1, 1), s.reshape(-1, 1, 1, 1)
        x, y = t / TOP * z + (1 - t / TOP) * here, s / TOP * z + (1 - s / TOP) * ahead
        return x - t * (x - y) / (t - s)

    exact = papers(z, here, ahead, t, s)
    left, _ = trajectory_residual(z, here, ahead, t, s, TOP, gaussian_of_any)
    torch.testing.assert_close(left, exact, rtol=1e-9, atol=1e-9)


def gaussian_of_any(x: Tensor, sigma: Tensor) -> Tensor:
    return 0.3 * x


def make_objective(levels: int = 40, physics: Physics | None = None, **settings: object) -> Pid:
    grid, units = PDE.grid(16), Normaliser((7.5, 0.006), (4.5, 0.004))
    teacher = bare_teacher(half, PDE, grid, units, EdmNoise())
    chosen = DistillSettings(objective={"name": "pid", "levels": levels, **settings}, physics_from=0.0)
    return Pid(chosen, teacher, Window(grid), physics, seed=5)


def half(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
    return 0.5 * x


class Student:
    """G(z, level) = weight * z / T * (1 + ln level), whose calls are kept."""

    def __init__(self) -> None:
        self.weight, self.seen = torch.tensor(0.7, requires_grad=True), []

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor, level: Tensor | None = None) -> Tensor:
        self.seen.append((sigma, level))
        assert level is not None
        return self.weight * x / TOP * (1 + level.log().reshape(-1, 1, 1, 1))


def batch(size: int = 6) -> Batch:
    eps = torch.randn(size, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch(0, torch.arange(size), eps, torch.zeros(size, 0), torch.zeros(size, 0))


def test_levels_are_even_over_the_grid_but_its_last() -> None:
    objective = make_objective(levels=5)
    t, s = objective.levels(torch.arange(4000))
    grid = karras_levels(0.002, 80.0, 5)
    place = torch.stack([t == level for level in grid]).double().mean(dim=1)
    assert torch.allclose(place[:4], torch.full((4,), 0.25).double(), atol=0.03) and place[4] == 0
    for level, following in itertools.pairwise(grid):
        assert (s[t == level] == following).all()
    assert torch.equal(objective.levels(torch.arange(7, 9))[0], t[7:9])  # by counter, in any company


def test_gradients_go_through_both_calls_and_not_through_the_teacher() -> None:
    objective, student, part = make_objective(), Student(), batch()
    loss, parts, _ = objective.losses(student, part, StepTimer())
    assert set(parts) == {"trajectory"} and loss.shape == (6,)
    (found,) = torch.autograd.grad(loss.sum(), student.weight)
    t, s = (level.float().reshape(-1, 1, 1, 1) for level in objective.levels(part.fresh))
    w = torch.tensor(0.7, requires_grad=True)
    here, ahead = (w * part.eps_BCYX * (1 + level.log()) for level in (t, s))
    state = (t * part.eps_BCYX + (1 - t / TOP) * here).detach()
    left = here - t * (1 - s / TOP) / (t - s) * (here - ahead)
    expected = (left - 0.5 * state).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), w)[0], rtol=1e-4, atol=0)
    sigma, level = student.seen[0]
    assert len(student.seen) == 1 and sigma.shape == (12,) and (sigma == TOP).all() and level[0] > level[6]


@pytest.mark.parametrize("settings", [{"distance": "l1"}, {"huber": 0.1}])
def test_distances(settings: dict[str, object]) -> None:
    plain = make_objective().losses(Student(), batch(), StepTimer())[0]
    other = make_objective(**settings).losses(Student(), batch(), StepTimer())[0]
    assert (other > 0).all() and not torch.allclose(other, plain)


def test_physics_is_that_of_the_field_at_the_lowest_level() -> None:
    scales = {"l2": 4.0, "dual": 0.5, "boundary": 0.01}
    plain = make_objective()
    physics = Physics(PDE, plain.window, plain.teacher.normaliser, dict.fromkeys(NORMS, 0.2), scales)
    student, part = Student(), batch()
    loss, parts, _ = replace(plain, physics=physics).losses(student, part, StepTimer())
    assert plain.network_level == 0.002 and (student.seen[0][1][12:] == 0.002).all()
    field = 0.7 * part.eps_BCYX * (1 + math.log(0.002))
    torch.testing.assert_close(plain.sample(student, part.eps_BCYX, part.condition_BP), field)
    squares = residual_squares(PDE, PDE.grid(16), plain.teacher.normaliser.decode(field))
    expected = parts["trajectory"] + sum(0.2 / scales[k] * squares[k] for k in NORMS)
    torch.testing.assert_close(loss, expected)
    without = plain.losses(Student(), part, StepTimer())[0]
    torch.testing.assert_close(parts["trajectory"], without)
