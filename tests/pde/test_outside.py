"""Solvers written by others agree: our residual of their fields is small, and our fields converge to theirs.

With the same discretisation, small means the tolerance of the solver; for fields of a better scheme the residual contains the
truncation error of our stencils, and each case states the share of the trivial score that it may reach. References are
elements of second degree on twice the finest grid.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pde as outside
import pytest
import torch

from pidscale.pde import build_pde
from pidscale.pde.base import Pde
from pidscale.pde.residuals import residual_rms
from tests.outside import finite_elements, march, operators

LATTICE = 257  # nodes a side of the reference, which resolves all waves of the random fields
GRIDS = (33, 65, 129)
STEADY: dict[str, tuple[str, dict[str, Any], float]] = {  # equation, parameters, largest share of the trivial score
    "poisson": ("poisson", {}, 0.01),
    "helmholtz": ("helmholtz", {"wavenumber": 6.0}, 0.01),
    "darcy": (
        "darcy",
        {"variant": "log_normal"},
        0.02,
    ),  # its permeability has waves as short as four spacings of the finest grid
    "smooth darcy": ("darcy", {"variant": "log_normal", "alpha": 3.0}, 0.01),
}
OTHER: dict[str, tuple[str, dict[str, Any]]] = {  # equations that the same fields do not solve
    "poisson": ("helmholtz", {"wavenumber": 2.0}),
    "helmholtz": ("helmholtz", {"wavenumber": 5.7}),
    "darcy": ("darcy", {"variant": "log_normal", "source": 1.25}),
    "smooth darcy": ("darcy", {"variant": "log_normal", "source": 1.25}),
}


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def score(pde: Pde, fields: np.ndarray, norm: str = "l2") -> float:
    grid = replace(pde.grid(8), shape=fields.shape[1:])
    return residual_rms(pde, grid, torch.from_numpy(np.ascontiguousarray(fields))[None])[norm]


def trivial(pde: Pde, fields: np.ndarray, norm: str = "l2") -> float:
    return score(pde, pde.trivial(torch.from_numpy(fields)[None])[0].numpy(), norm)


def elements(pde: Any, given: np.ndarray, degree: int, lumped: bool = False) -> np.ndarray:
    """Return the joint field of an input and the other solution: our lap u + k^2 u = f is their -lap u - k^2 u = -f."""
    one = np.ones_like(given)
    a, f = (given, one) if pde.name == "darcy" else (one, -given)
    shift = pde.params.wavenumber**2 if pde.name == "helmholtz" else 0.0
    return np.stack([given, finite_elements(a, shift, f, degree, lumped)])


@lru_cache
def reference(case: str) -> tuple[Pde, np.ndarray]:
    name, params, _ = STEADY[case]
    pde = build_pde(name, params)
    return pde, elements(pde, pde.sample(3, 0, pde.grid(LATTICE))[0][0], degree=2)


def on(fields: np.ndarray, points: int) -> np.ndarray:
    """Return the fields at every `step`-th point, for periodic grids and for nodes."""
    step = (fields.shape[1] - 1) // (points - 1)
    return fields[:, ::step, ::step]


@pytest.mark.parametrize("case", STEADY)
def test_finite_element_fields_have_a_small_residual(case: str) -> None:
    pde, fine = reference(case)
    fields = on(fine, GRIDS[-1])
    small = STEADY[case][2]
    for norm, share in (("l2", small), ("dual", small / 10)):  # the dual norm weighs the shortest waves least
        assert score(pde, fields, norm) <= share * trivial(pde, fields, norm)
    name, params = OTHER[case]
    assert score(build_pde(name, params), fields) > 10 * score(pde, fields)
    assert score(pde, fields, "boundary") == 0


@pytest.mark.parametrize("case", STEADY)
def test_our_steady_fields_converge_to_finite_elements_at_second_order(case: str) -> None:
    pde, fine = reference(case)
    errors = [rms(pde.solve(on(fine, n), pde.grid(n))[0][1] - on(fine, n)[1]) for n in GRIDS]
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx([2.0, 2.0], abs=0.3)
    assert errors[-1] < 1e-3 * rms(fine[1])


@pytest.mark.parametrize("case", ["poisson", "helmholtz"])
@pytest.mark.parametrize("points", [33, 64])
def test_linear_elements_with_lumped_mass_equal_our_scheme(case: str, points: int) -> None:
    name, params, _ = STEADY[case]
    pde = build_pde(name, params)
    ours = pde.sample(3, 1, pde.grid(points))[0]
    theirs = elements(pde, ours[0], degree=1, lumped=True)
    assert score(pde, theirs) < 1e-10
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-10 * rms(ours[1]))


def reaction_diffusion(pde: Any, state: np.ndarray, **solver: Any) -> np.ndarray:
    """Return frames of FitzHugh-Nagumo on py-pde's cells with zero flux, [F S, Y, X] from a state [S, Y, X]."""
    grid = outside.CartesianGrid([(-1, 1), (-1, 1)], state.shape[1:])
    laplace, _ = operators(grid, {"derivative": 0})
    p = pde.params

    def rate(s: np.ndarray) -> np.ndarray:
        u, v = s
        return np.stack([p.diffusion_u * laplace(u) + u - u**3 - p.source - v, p.diffusion_v * laplace(v) + u - v])

    return march(grid, state, rate, pde.duration, pde.frames, **solver).reshape(-1, *state.shape[1:])


def test_another_integrator_on_the_same_cells_agrees_in_reaction_diffusion() -> None:
    """Both have the 5-point form with zero flux: they differ by the error of our Runge-Kutta steps."""
    pde = build_pde("reaction_diffusion")
    ours = pde.sample(3, 0, pde.grid(32))[0]
    theirs = reaction_diffusion(pde, ours[:2], solver="scipy", method="DOP853", rtol=1e-11, atol=1e-12, dt=0.1)
    assert rms(theirs - ours) < 1e-6 * rms(ours)
    assert score(pde, theirs) < 0.01 * trivial(pde, ours)  # a tenth of what other tests allow for equations in time
    assert score(pde, theirs) == pytest.approx(score(pde, ours), rel=1e-3)
    for wrong in ({"diffusion_u": 2e-3}, {"diffusion_v": 1e-2}):
        assert score(build_pde("reaction_diffusion", wrong), theirs) > 10 * score(pde, theirs)


def test_euler_steps_converge_to_our_reaction_diffusion_at_first_order() -> None:
    pde = build_pde("reaction_diffusion")
    ours = pde.sample(3, 1, pde.grid(32))[0]
    errors = [rms(reaction_diffusion(pde, ours[:2], solver="euler", dt=dt) - ours) for dt in (0.04, 0.02, 0.01)]
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx([1.0, 1.0], abs=0.1)


def burgers(pde: Any, cells: int) -> np.ndarray:
    """Return Burgers' equation by central differences in conservation form, [1, T, X]: 64 rows, 64 of its columns."""
    grid = outside.CartesianGrid([(0, 1)], cells, periodic=True)
    laplace, gradient = operators(grid, "periodic")
    p = pde.params

    def rate(s: np.ndarray) -> np.ndarray:
        return (p.viscosity * laplace(s[0]) - gradient(s[0] ** 2 / 2)[0])[None]

    step = {"solver": "scipy", "method": "RK45", "rtol": 1e-6, "atol": 1e-8, "dt": 1e-3}
    rows = march(grid, pde.initial(3, 0, cells)[None], rate, p.duration, 64, **step)
    return rows[None, :, 0, :: cells // 64]


def wave(pde: Any, cells: int) -> np.ndarray:
    """Return the wave equation as two equations of first order, by the 5-point form, [F, Y, X]."""
    grid = outside.CartesianGrid([(0, 1), (0, 1)], cells, periodic=True)
    laplace, _ = operators(grid, "periodic")
    u = pde.initial(3, 0, pde.grid(cells))[0]

    def rate(s: np.ndarray) -> np.ndarray:
        return np.stack([s[1], pde.params.speed**2 * laplace(s[0])])

    state = np.stack([u, np.zeros_like(u)])
    return march(grid, state, rate, pde.duration, pde.frames, solver="runge-kutta", dt=0.005)[:, 0]


def navier_stokes(pde: Any, cells: int) -> np.ndarray:
    """Return the vorticity by central differences, [F, Y, X]; py-pde's Laplacian of the stream function is -w."""
    grid = outside.CartesianGrid([(0, 1), (0, 1)], cells, periodic=True)
    laplace, gradient = operators(grid, "periodic")
    y, x = np.meshgrid(*2 * [2 * np.pi * np.arange(cells) / cells], indexing="ij")
    force = pde.params.force * (np.sin(x + y) + np.cos(x + y))
    point = np.zeros((cells, cells))
    point[0, 0] = 1.0
    symbol = np.fft.rfft2(laplace(point))  # the Laplacian is the same at every point, so that waves diagonalise it
    symbol[0, 0] = np.inf

    def rate(s: np.ndarray) -> np.ndarray:
        psi_y, psi_x = gradient(np.fft.irfft2(-np.fft.rfft2(s[0]) / symbol))
        w_y, w_x = gradient(s[0])
        return (pde.params.viscosity * laplace(s[0]) + force - (psi_y * w_x - psi_x * w_y))[None]

    state = pde.initial(3, 0, pde.grid(cells))
    return march(grid, state, rate, pde.duration, pde.frames, solver="runge-kutta", dt=0.02)[:, 0]


IN_TIME: dict[str, tuple[Any, tuple[int, ...], dict[str, Any], list[dict[str, Any]]]] = {
    # solver, cells a side, parameters, parameters that do not fit the same fields
    "burgers": (burgers, (64, 128, 256), {}, [{"viscosity": 0.011}]),
    "wave": (wave, (24, 48, 96), {"alpha": 6.0}, [{"alpha": 6.0, "speed": 1.01}]),
    "navier_stokes": (navier_stokes, (24, 48, 96), {}, [{"viscosity": 2e-3}, {"force": 0.15}]),
}


@pytest.mark.parametrize("name", IN_TIME)
def test_central_differences_converge_to_our_fields_in_time_at_second_order(name: str) -> None:
    solver, cells, params, others = IN_TIME[name]
    pde = build_pde(name, params)
    theirs = [solver(pde, n) for n in cells]
    best = theirs[-1]
    ours = pde.sample(3, 0, pde.grid(best.shape[1]))[0]
    errors = [rms(on(fields, cells[0]) - on(ours, cells[0])) for fields in theirs]
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx([2.0, 2.0], abs=0.3)
    assert score(pde, best) < 0.01 * trivial(pde, ours)  # a tenth of what other tests allow for equations in time
    for other in others:
        assert score(build_pde(name, other), best) > 10 * score(pde, best), other
