"""Grids and the window of one process: spacing, what lies beyond an end, and edges counted once."""

from __future__ import annotations

import json

import pytest
import torch

from pidscale.ops.grid import Grid
from pidscale.ops.window import Window


def test_spacing_follows_from_where_the_points_sit() -> None:
    assert Grid((5, 9), (1.0, 4.0), "node", "dirichlet").spacing == (0.25, 0.5)
    assert Grid((4, 8), (1.0, 4.0), "cell", "zero_flux").spacing == (0.25, 0.5)
    assert Grid((4, 8), (1.0, 4.0), "periodic", "periodic").spacing == (0.25, 0.5)
    assert Grid((5, 8), (1.0, 4.0), "strip", "periodic").spacing == (0.25, 0.5)
    assert Grid((5, 9), (1.0, 4.0), "strip", "dirichlet").spacing == (0.25, 0.5)


@pytest.mark.parametrize(("kind", "boundary"), [("cell", "zero_flux"), ("strip", "periodic"), ("strip", "dirichlet")])
def test_a_description_survives_json(kind: str, boundary: str) -> None:
    grid = Grid((6, 7), (1.0, 2.5), kind, boundary)
    assert Grid.from_description(json.loads(json.dumps(grid.describe()))) == grid


@pytest.mark.parametrize(
    ("shape", "kind", "boundary"),
    [
        ((8, 8), "nodes", "dirichlet"),
        ((8, 8), "node", "neumann"),
        ((8, 8), "periodic", "dirichlet"),
        ((8, 8), "node", "periodic"),
        ((8, 3), "node", "dirichlet"),
        ((8, 8), "strip", "zero_flux"),
        ((8, 8), "cell", "periodic"),
        ((3, 8), "strip", "dirichlet"),
    ],
)
def test_impossible_grids_are_refused(shape: tuple[int, int], kind: str, boundary: str) -> None:
    with pytest.raises(ValueError, match=r"grid|periodic"):
        Grid(shape, (1.0, 1.0), kind, boundary)


def test_a_window_wraps_where_the_grid_is_periodic_and_only_there() -> None:
    field = torch.arange(20.0).reshape(1, 1, 4, 5)
    wrapped = Window(Grid((4, 5), kind="periodic", boundary="periodic")).attach(field, 2)
    rows, columns = torch.arange(-2, 6) % 4, torch.arange(-2, 7) % 5
    assert torch.equal(wrapped[0, 0], field[0, 0][rows][:, columns])
    for grid in (Grid((4, 5)), Grid((4, 5), kind="strip"), Grid((4, 5), kind="strip", boundary="periodic")):
        assert torch.equal(Window(grid).attach(field, 2), field)  # the last time has no next one


def test_every_edge_point_is_counted_once() -> None:
    field = torch.arange(2 * 5 * 7.0).reshape(2, 5, 7)
    edges = Window(Grid((5, 7))).edges(field)
    on_edge = torch.ones(5, 7, dtype=torch.bool)
    on_edge[1:-1, 1:-1] = False
    for sample in (0, 1):
        assert edges[sample].sort().values.tolist() == field[sample][on_edge].tolist()


def test_a_square_sum_comes_with_its_count() -> None:
    field = torch.randn(3, 4, 5, dtype=torch.float64)
    total, count = Window(Grid((4, 5))).square_sum(field)
    assert count == 20
    torch.testing.assert_close(total, torch.stack([(one**2).sum() for one in field]))
