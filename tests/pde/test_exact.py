"""Equations with exact solvers, against integrators that share no code with them, at the order of the integrator.

Heat, advection-diffusion and the wave equation against differences of fourth order and against py-pde's of second order,
Stokes' problem against Crank-Nicolson steps. Durations, frames and speeds differ from 1, so that confusing them is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pde as outside
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import solve_banded

from pidscale.pde import build_pde
from pidscale.pde.base import Pde, truths
from pidscale.pde.evolution import Evolution
from pidscale.pde.residuals import residual_rms
from pidscale.pde.solve import lines
from tests.outside import march, operators

CELLS = (24, 48, 96)
SMOOTH = {"alpha": 8.0, "duration": 0.7, "frames": 8}
COUNTERS = (1, 2)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def orders(errors: list[float]) -> np.ndarray:
    """Return the orders of convergence of errors on grids, each twice as fine as the one before."""
    return np.log2(np.array(errors[:-1]) / errors[1:])


def score(pde: Pde, fields: np.ndarray, *params: float) -> float:
    """Return the l2 residual of one joint field [C, Y, X]."""
    grid = replace(pde.grid(8), shape=fields.shape[1:])
    one = torch.tensor([params], dtype=torch.float64)
    return residual_rms(pde, grid, torch.from_numpy(fields)[None], one)["l2"]


def stationary(pde: Pde, fields: np.ndarray) -> np.ndarray:
    return pde.trivial(torch.from_numpy(fields)[None])[0].numpy()


def altered(params: list[float], column: int, factor: float) -> list[float]:
    return [p * factor if i == column else p for i, p in enumerate(params)]


# ---- equations with independent waves

Rate = Callable[[np.ndarray], np.ndarray]


def slope(u: np.ndarray, axis: int) -> np.ndarray:
    near, far = (np.roll(u, -s, axis) - np.roll(u, s, axis) for s in (1, 2))
    return (8 * near - far) / 12 * u.shape[axis]


def laplacian(u: np.ndarray) -> np.ndarray:
    """Return the Laplacian, of fourth order."""
    total = np.zeros_like(u)
    for axis in (-2, -1):
        near, far = (np.roll(u, -s, axis) + np.roll(u, s, axis) for s in (1, 2))
        total += (16 * near - far - 30 * u) / 12 * u.shape[axis] ** 2
    return total


RATES: dict[str, Callable[..., np.ndarray]] = {  # of a state [S, Y, X]; x along columns, the last axis
    "heat": lambda s, alpha: alpha * laplacian(s),
    "advection_diffusion": lambda s, b_x, b_y, kappa: kappa * laplacian(s) - b_x * slope(s, -1) - b_y * slope(s, -2),
    "wave": lambda s, speed: np.stack([s[1], speed**2 * laplacian(s[0])]),
}


def exact(name: str, **more: float) -> Evolution:
    pde = build_pde(name, SMOOTH | ({"speed": 0.6} if name == "wave" else {}) | more)
    assert isinstance(pde, Evolution)
    return pde


def differences(pde: Any, first: np.ndarray, params: list[float]) -> np.ndarray:
    """Return frames [F, Y, X] from the first one, which is at rest for the wave equation."""
    wave = pde.name == "wave"
    state = np.stack([first, np.zeros_like(first)]) if wave else first[None]
    own = [pde.params.speed] if wave else params

    def rate(_: float, flat: np.ndarray) -> np.ndarray:
        return RATES[pde.name](flat.reshape(state.shape), *own).ravel()

    times = np.linspace(0.0, SMOOTH["duration"], int(SMOOTH["frames"]))
    found = solve_ivp(rate, (0.0, times[-1]), state.ravel(), "DOP853", times, rtol=1e-11, atol=1e-13)
    return found.y.T.reshape(len(times), *state.shape)[:, 0]


@pytest.mark.parametrize("counter", COUNTERS)
@pytest.mark.parametrize("name", RATES)
def test_fourth_order_differences_converge_to_our_frames_at_fourth_order(name: str, counter: int) -> None:
    pde = exact(name)
    errors = []
    for cells in CELLS:
        ours, own = pde.sample(5, counter, pde.grid(cells))
        params = [own[key] for key in pde.varying]
        theirs = differences(pde, ours[0], params)
        errors.append(rms(theirs - ours) / rms(ours))
    assert orders(errors) == pytest.approx([4.0, 4.0], abs=0.3)
    assert errors[-1] < 5e-6
    found = score(pde, theirs, *params)
    assert found < 1e-5 * score(pde, stationary(pde, theirs), *params)
    for column in range(len(params)):
        assert min(score(pde, theirs, *altered(params, column, factor)) for factor in (0.8, 1.2)) > 100 * found
    if name == "wave":
        assert min(score(exact(name, speed=speed), theirs) for speed in (0.48, 0.72)) > 100 * found


def test_the_compared_samples_have_winds_of_both_signs() -> None:
    pde = exact("advection_diffusion")
    winds = truths(pde, 5, COUNTERS, pde.grid(8)).params[:, :2]
    assert winds.abs().min() > 0.1 and (winds.amin(dim=0) < 0).all() and (winds.amax(dim=0) > 0).all()
    assert (winds[:, 0] - winds[:, 1]).abs().min() > 0.1


@pytest.mark.parametrize(("b_x", "b_y"), [(0.5, 0.0), (-0.5, 0.0), (0.0, 1.0), (0.0, -1.0), (1.5, -2.0)])
@pytest.mark.parametrize("shape", [(15, 20), (20, 15)])
def test_the_wind_moves_fields_along_columns_and_rows(shape: tuple[int, int], b_x: float, b_y: float) -> None:
    """Without diffusion the first frame moves by whole points: with b_x to later columns, with b_y to later rows."""
    pde = build_pde("advection_diffusion", {"duration": 2.0, "frames": 6})  # 0.4 between frames: 0.2 or 0.4 of a side
    grid = replace(pde.grid(8), shape=shape)
    first = pde.sample(0, 0, grid)[0][0]
    rows, columns = round(0.4 * b_y * shape[0]), round(0.4 * b_x * shape[1])
    moved = np.stack([np.roll(first, (n * rows, n * columns), (0, 1)) for n in range(6)])
    zeros = np.concatenate([first[None], np.zeros_like(moved[1:])])
    np.testing.assert_allclose(pde.solve(zeros, grid, (b_x, b_y, 0.0))[0], moved, rtol=0, atol=1e-12)
    assert score(pde, moved, b_x, b_y, 0.0) < 1e-12
    for wrong in {(b_y, b_x), (-b_x, b_y), (b_x, -b_y)} - {(b_x, b_y)}:
        assert score(pde, moved, *wrong, 0.0) > 0.1, wrong


@pytest.mark.parametrize("shape", [(16, 16), (15, 20)])
@pytest.mark.parametrize("name", RATES)
def test_a_rough_first_frame_is_solved_to_rounding(name: str, shape: tuple[int, int]) -> None:
    """It contains the highest wave of an even grid, which has no direction: solver and residual treat it alike."""
    pde = exact(name)
    fields = np.random.default_rng(0).normal(size=(pde.frames, *shape))
    params = [0.7, -0.4, 0.003][-len(pde.varying) :] if pde.varying else []
    solved, clipped = pde.solve(fields, replace(pde.grid(8), shape=shape), params)
    assert clipped == 0 and np.array_equal(solved[0], fields[0])
    assert score(pde, solved, *params) < 1e-12 * score(pde, fields, *params)


def central(pde: Any, first: np.ndarray, b_x: float, b_y: float, kappa: float) -> np.ndarray:
    """Return advection and diffusion by py-pde's central differences on its cells, [F, Y, X]."""
    grid = outside.CartesianGrid([(0, 1), (0, 1)], first.shape, periodic=True)
    laplace, gradient = operators(grid, "periodic")

    def rate(s: np.ndarray) -> np.ndarray:
        along_y, along_x = gradient(s[0])
        return (kappa * laplace(s[0]) - b_x * along_x - b_y * along_y)[None]

    return march(grid, first[None], rate, pde.duration, pde.frames, solver="runge-kutta", dt=0.01)[:, 0]


def test_another_solver_of_advection_converges_to_our_frames_at_second_order() -> None:
    """Extrapolated from two grids, its fields have a small residual."""
    pde = exact("advection_diffusion")
    errors = []
    frames = []
    for cells in CELLS:
        ours, own = pde.sample(5, COUNTERS[0], pde.grid(cells))
        params = [own[key] for key in pde.varying]
        frames.append(central(pde, ours[0], *params))
        errors.append(rms(frames[-1] - ours))
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.3)
    theirs = (4 * frames[-1][:, ::2, ::2] - frames[-2]) / 3
    found = score(pde, theirs, *params)
    assert found < 1e-4 * score(pde, stationary(pde, theirs), *params)
    for column in range(3):
        assert score(pde, theirs, *altered(params, column, 1.2)) > 10 * found


# ---- the oscillating wall

NODES = (65, 129, 257)
SWINGS = range(4)


def swing(points: int, counter: int) -> tuple[Pde, np.ndarray, float]:
    """Return the equation, the velocity [T, Y] of the closed form and its viscosity."""
    pde = build_pde("stokes")
    fields, own = pde.sample(3, counter, pde.grid(points))
    return pde, fields[0], own["viscosity"]


def crank_nicolson(rows: np.ndarray, viscosity: float) -> np.ndarray:
    """Return the velocity [T, Y] that follows from the first row and both end columns, on the same points and times."""
    ratio = viscosity * (rows.shape[1] - 1) ** 2 / (2 * (len(rows) - 1))
    bands = np.full((3, rows.shape[1] - 2), -ratio)
    bands[1] = 1 + 2 * ratio
    u = np.full_like(rows, np.nan)
    u[0] = rows[0]
    u[:, [0, -1]] = rows[:, [0, -1]]
    for n in range(len(rows) - 1):
        right = u[n, 1:-1] + ratio * (u[n, 2:] - 2 * u[n, 1:-1] + u[n, :-2])
        right[[0, -1]] += ratio * u[n + 1, [0, -1]]
        u[n + 1, 1:-1] = solve_banded((1, 1), bands, right)
    return u


@pytest.mark.parametrize("counter", SWINGS)
def test_crank_nicolson_steps_converge_to_the_closed_form(counter: int) -> None:
    errors = []
    for points in NODES:
        _, truth, viscosity = swing(points, counter)
        errors.append(rms(crank_nicolson(truth, viscosity) - truth) / rms(truth))
        assert rms(crank_nicolson(truth, 1.2 * viscosity) - truth) > 0.03 * rms(truth)
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.3)
    assert errors[-1] < 3e-4


@pytest.mark.parametrize("counter", SWINGS)
def test_crank_nicolson_steps_have_a_small_residual_with_their_own_viscosity_only(counter: int) -> None:
    """Extrapolated from two grids, their fields are of fourth order too, with the residual of the closed form."""
    coarse, fine = (crank_nicolson(*swing(points, counter)[1:]) for points in NODES[-2:])
    theirs = ((4 * fine[::2, ::2] - coarse) / 3)[::2, ::2]
    pde, truth, viscosity = swing(NODES[0], counter)
    assert rms(theirs - truth) < 3e-6 * rms(truth)
    found = score(pde, theirs[None], viscosity)
    assert found < 1e-5 and found < 3 * score(pde, truth[None], viscosity) + 1e-7
    assert min(score(pde, theirs[None], viscosity * factor) for factor in (0.8, 1.2)) > 1000 * found


def solver_errors(counter: int, sizes: tuple[int, ...]) -> list[float]:
    """Return relative errors of the velocity that `solve` finds from the inputs."""
    errors = []
    for points in sizes:
        pde, truth, viscosity = swing(points, counter)
        grid = pde.grid(points)
        asked = np.where(pde.unknown(grid).numpy(), 7.0, truth)
        errors.append(rms(pde.solve(asked[None], grid, [viscosity])[0][0] - truth) / rms(truth))
    return errors


@pytest.mark.parametrize("counter", SWINGS)
def test_a_velocity_is_solved_from_its_edges(counter: int) -> None:
    """To 1e-4 at 65 points, a hundredth of the error of a viscosity that is a fifth too large."""
    errors = solver_errors(counter, (9, 17, 33, 65))
    assert errors[0] < 2e-3 and errors[-1] < 1e-4 and np.all(np.diff(errors) < 0)
    pde, truth, viscosity = swing(65, counter)
    assert rms(pde.solve(truth[None], pde.grid(65), [1.2 * viscosity])[0][0] - truth) > 0.05 * rms(truth)


def test_a_velocity_is_solved_at_second_order_in_time_and_along_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "FINE", 4096)
    assert orders(solver_errors(0, (33, 65, 129))) == pytest.approx([2.0, 2.0], abs=0.3)
    monkeypatch.setattr(lines, "SUBSTEPS", 64)
    errors = []
    for intervals in (128, 256, 512):
        monkeypatch.setattr(lines, "FINE", intervals)
        errors += solver_errors(0, (65,))
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.3)


def test_the_wall_oscillates_with_amplitude_and_frequency_and_decays_with_distance() -> None:
    pde = build_pde("stokes", {"amplitude": 3.0, "frequency_low": 5.0, "frequency_high": 5.0})
    t = np.linspace(0.0, 1.0, 33)
    turns = []
    for counter in range(8):
        (u,), own = pde.sample(1, counter, pde.grid(33))
        basis = np.stack([np.cos(5 * t), np.sin(5 * t)], axis=1)
        swings = np.linalg.lstsq(basis, u, rcond=None)[0]  # of every column, [2, Y]
        np.testing.assert_allclose(basis @ swings, u, rtol=0, atol=1e-12)
        fade = np.sqrt(5 / (2 * own["viscosity"]))
        np.testing.assert_allclose(np.hypot(*swings), 3.0 * np.exp(-fade * t), rtol=1e-9)
        turns.append(np.arctan2(swings[1, 0], swings[0, 0]))
    assert np.ptp(turns) > np.pi  # phases differ
