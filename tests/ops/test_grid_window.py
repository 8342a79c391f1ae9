"""Grids and the window of one process: spacing, border points, and edges counted once."""

from __future__ import annotations

import json

import pytest
import torch

from pidscale.ops.grid import Grid
from pidscale.ops.window import Window


def test_spacing_depends_on_the_position_of_the_points() -> None:
    assert Grid((5, 9), (1.0, 4.0), "node", "dirichlet").spacing == (0.25, 0.5)
    assert Grid((4, 8), (1.0, 4.0), "cell", "zero_flux").spacing == (0.25, 0.5)
    assert Grid((4, 8), (1.0, 4.0), "periodic", "periodic").spacing == (0.25, 0.5)
    assert Grid((5, 8), (1.0, 4.0), "strip", "periodic").spacing == (0.25, 0.5)
    assert Grid((5, 9), (1.0, 4.0), "strip", "dirichlet").spacing == (0.25, 0.5)


@pytest.mark.parametrize(("kind", "boundary"), [("cell", "zero_flux"), ("strip", "periodic"), ("strip", "dirichlet")])
def test_a_grid_is_rebuilt_from_its_description_in_json(kind: str, boundary: str) -> None:
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


def test_a_stencil_has_the_border_points_of_its_grid() -> None:
    """Periodic grids wrap around, cells repeat their edge, and nodes and times have no border points."""
    field = torch.arange(20.0).reshape(1, 1, 4, 5)
    seen = []

    def form(wide: torch.Tensor) -> torch.Tensor:
        seen.append(wide)
        return wide[..., 2:-2, 2:-2]

    rows, columns = torch.arange(-2, 6), torch.arange(-2, 7)
    wrapped = Window(Grid((4, 5), kind="periodic", boundary="periodic")).stencil(field, 2, form)
    assert torch.equal(wrapped, field) and torch.equal(seen.pop()[0, 0], field[0, 0][rows % 4][:, columns % 5])
    repeated = Window(Grid((4, 5), kind="cell", boundary="zero_flux")).stencil(field, 2, form)
    assert torch.equal(repeated, field)
    assert torch.equal(seen.pop()[0, 0], field[0, 0][rows.clamp(0, 3)][:, columns.clamp(0, 4)])
    for grid in (Grid((4, 5)), Grid((4, 5), kind="strip"), Grid((4, 5), kind="strip", boundary="periodic")):
        Window(grid).stencil(field, 1, form)
        assert torch.equal(seen.pop(), field)


def test_every_edge_point_is_counted_once() -> None:
    field = torch.arange(2 * 5 * 7.0).reshape(2, 5, 7)
    edges = Window(Grid((5, 7))).edges(field)
    on_edge = torch.ones(5, 7, dtype=torch.bool)
    on_edge[1:-1, 1:-1] = False
    for sample in (0, 1):
        assert edges[sample].sort().values.tolist() == field[sample][on_edge].tolist()
