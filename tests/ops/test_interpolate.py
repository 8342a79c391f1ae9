"""Weights of readings between grid points: exact on linear functions, and the means of the interpolant."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.interpolate import is_periodic, mean_weights, slope_weights

NODE = Grid((9, 12), (1.0, 2.0))
CELL = Grid((8, 10), (1.0, 3.0), "cell", "zero_flux")
TORUS = Grid((8, 12), (2 * math.pi, 1.0), "periodic", "periodic")
STRIP = Grid((6, 8), (1.0, 1.0), "strip", "periodic")
ENDS = Grid((6, 8), (1.0, 1.0), "strip", "dirichlet")
GRIDS = {"node": NODE, "cell": CELL, "torus": TORUS, "strip": STRIP, "ends": ENDS}


def axis(grid: Grid, dim: int) -> Tensor:
    """The coordinates of the points of an axis."""
    return (torch.arange(grid.shape[dim], dtype=torch.float64) + 0.5 * (grid.kind == "cell")) * grid.spacing[dim]


def random_places(grid: Grid, dim: int, count: int = 40) -> Tensor:
    draws = torch.Generator().manual_seed(dim)
    inside = torch.rand(count, generator=draws, dtype=torch.float64) * grid.extent[dim]
    return torch.cat([inside, torch.tensor([0.0, grid.extent[dim]], dtype=torch.float64), axis(grid, dim)])


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dim", [0, 1])
def test_a_linear_function_is_read_exactly_between_points_and_a_point_at_itself(name: str, dim: int) -> None:
    grid = GRIDS[name]
    places = random_places(grid, dim)
    weights = mean_weights(grid, dim, places, places)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(places), dtype=torch.float64), rtol=0, atol=1e-12)
    assert ((weights > 1e-12).sum(dim=1) <= 2).all() and (weights >= 0).all()
    torch.testing.assert_close(
        weights[-grid.shape[dim] :], torch.eye(grid.shape[dim], dtype=torch.float64), rtol=0, atol=1e-12
    )
    points = axis(grid, dim)
    within = (places >= points[0]) & (places <= points[-1])
    torch.testing.assert_close(weights[within] @ (3 * points - 1), 3 * places[within] - 1, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dim", [0, 1])
def test_a_mean_is_that_of_many_places(name: str, dim: int) -> None:
    grid = GRIDS[name]
    extent = grid.extent[dim]
    for low, high in ((0.0, extent), (0.13 * extent, 0.77 * extent), (0.0, 0.04 * extent), (0.9 * extent, extent)):
        between = low + (high - low) * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
        wanted = mean_weights(grid, dim, between, between).mean(dim=0)
        ends = torch.tensor([[low], [high]], dtype=torch.float64)
        found = mean_weights(grid, dim, *ends)[0]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)


def test_a_place_before_the_first_point_of_a_period_is_between_the_last_and_the_first() -> None:
    place = torch.tensor([1.0 - 0.25 / 12], dtype=torch.float64)
    weights = mean_weights(TORUS, 1, place, place)[0]
    assert is_periodic(TORUS, 1) and is_periodic(STRIP, 1) and not is_periodic(STRIP, 0) and not is_periodic(ENDS, 1)
    assert weights[-1] == pytest.approx(0.25) and weights[0] == pytest.approx(0.75)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dim", [0, 1])
def test_the_slope_of_a_linear_function_is_exact(name: str, dim: int) -> None:
    grid = GRIDS[name]
    places = random_places(grid, dim)
    weights = slope_weights(grid, dim, places)
    torch.testing.assert_close(weights.sum(dim=1), torch.zeros(len(places), dtype=torch.float64), rtol=0, atol=1e-9)
    points = axis(grid, dim)
    reach = 0.5 * grid.spacing[dim] if is_periodic(grid, dim) else 0.0
    within = (places >= points[0] + reach) & (places <= points[-1] - reach)
    torch.testing.assert_close(
        weights[within] @ (3 * points), torch.full((int(within.sum()),), 3.0, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def test_the_slope_of_a_wave_comes_to_its_derivative_at_second_order() -> None:
    errors = []
    for points in (32, 64, 128):
        grid = Grid((points, points), (2 * math.pi, 2 * math.pi), "periodic", "periodic")
        places = axis(grid, 0) + 0.5 * grid.spacing[0]  # where interpolation is halfway
        found = slope_weights(grid, 0, places) @ axis(grid, 0).sin()
        errors.append(float((found - places.cos()).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)
