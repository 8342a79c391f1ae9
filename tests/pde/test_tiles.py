"""The residual of a field split over ranks equals that of the whole field: values, gradients, and messages.

Whole fields are computed in one process by the window of one process; tiles of rows by real ranks over gloo.
"""

from __future__ import annotations

import pytest
import torch

from pidscale.config import UserError
from pidscale.engine.window import TileWindow
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh, Space
from pidscale.parallel.split import Cut
from pidscale.pde import PDES, build_pde
from pidscale.pde.head import correct_rows
from pidscale.pde.heat import Heat
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_shares, residual_squares
from pidscale.pde.terms import EXTRA_MEASURES
from tests.ranks import spawn

FRAMES = {"heat", "wave", "advection_diffusion", "navier_stokes", "reaction_diffusion"}
POINTS = (16, 17)  # even and odd
UNEVEN = {2: (0, 5, 16), 4: (0, 3, 6, 12, 16)}
TRANSPOSES = {
    "heat": 2,
    "wave": 2,
    "advection_diffusion": 2,
    "navier_stokes": 4,
}  # to columns and back, all frames together


def made(name, points, dtype):
    """Return an equation, its grid, three rough fields and their parameters."""
    pde = build_pde(name, {"frames": 5} if name in FRAMES else {})
    fields = torch.randn(3, len(pde.channels), points, points, dtype=torch.float64, generator=torch.manual_seed(7))
    return pde, pde.grid(points), (1.0 + 0.3 * fields).to(dtype), draw_params(pde, 0, "x", range(3)).to(dtype)


def loss_of(squares):
    """Return a loss with another weight for each term and sample of a residual."""
    weight = torch.tensor([1.0, 0.5, 2.0])
    return sum((k + 1) * (weight.to(v) * v).sum() for k, (_, v) in enumerate(sorted(squares.items())))


def whole(name, points, dtype):
    pde, grid, fields, params = made(name, points, dtype)
    x = fields.requires_grad_()
    squares = residual_squares(pde, grid, x, params)
    loss_of(squares).backward()
    return {k: v.detach() for k, v in squares.items()}, x.grad


def tiled(rank, world, names, dtype):
    """Return shares, gradients of this rank's rows, and messages, for every equation, size and cut."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    found = {}
    for name in names:
        for points in POINTS:
            cuts = [Cut.even(points, world)]
            if points == 16:
                cuts.append(Cut(UNEVEN[world]))
            for cut in cuts:
                pde, grid, fields, params = made(name, points, dtype)
                window = TileWindow(grid, cut, mesh.space)
                x = window.crop(fields).clone().requires_grad_()
                mesh.space.traffic.clear()
                shares = residual_shares(pde, window, x, params)
                there = dict(mesh.space.traffic.messages), dict(mesh.space.traffic.bytes)
                loss_of(shares).backward()
                both = dict(mesh.space.traffic.messages)
                found[name, points, cut.ends] = {k: v.detach() for k, v in shares.items()}, x.grad, there, both
    return found


def near(found, wanted, tolerance):
    error = (found - wanted).norm()
    size = wanted.norm()
    assert error <= tolerance * size, f"{float(error / size):.2e} of the norm"


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_residuals_of_split_fields_equal_those_of_whole_fields(world, dtype, tolerance):
    ranks = spawn(tiled, world, list(PDES), dtype)
    for name, points, ends in ranks[0]:
        parts = [rank[name, points, ends] for rank in ranks]
        squares, gradient = whole(name, points, dtype)
        for norm, square in squares.items():
            near(sum(shares[norm] for shares, *_ in parts), square, tolerance)
        near(torch.cat([grad for _, grad, *_ in parts], dim=-2), gradient, tolerance)
        for rank, (_, _, (messages, _), both) in enumerate(parts):
            check_messages(name, rank, world, messages, both)


def check_messages(name, rank, world, messages, both):
    """One message to each neighbour, or one transpose to columns and one back; the dual norm of a field takes one more."""
    neighbours = 2 if 0 < rank < world - 1 else 1
    if name in TRANSPOSES:
        assert messages == {"transpose": TRANSPOSES[name] + 1}
        assert both == {"transpose": 2 * (TRANSPOSES[name] + 1)}
    elif name in ("burgers", "stokes"):
        assert messages == {"halo": neighbours} and both == {"halo": neighbours, "halo gradient": neighbours}
    else:
        assert messages == {"halo": neighbours, "transpose": 1}
        assert both == {"halo": neighbours, "halo gradient": neighbours, "transpose": 2}


STEADY = {"darcy", "poisson", "helmholtz"}


def measured(name, window, x, params):
    """Return the extra measures and their gradient."""
    pde = build_pde(name, {"frames": 5} if name in FRAMES else {})
    extra = ["conservation"] if name in STEADY else list(EXTRA_MEASURES)
    shares = residual_shares(pde, window, x, params, extra)
    squares = {k: shares[k] for k in extra}
    loss_of(squares).backward()
    return {k: v.detach() for k, v in squares.items()}, x.grad


def measured_on_tiles(rank, world, names):
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    found = {}
    for name in names:
        _, grid, fields, params = made(name, 16, torch.float64)
        window = TileWindow(grid, Cut((0, 5, 8, 16)), mesh.space)
        found[name] = measured(name, window, window.crop(fields).clone().requires_grad_(), params)
    return found


def test_extra_measures_of_split_fields_equal_those_of_whole_fields():
    ranks = spawn(measured_on_tiles, 3, list(PDES))
    for name in PDES:
        _, grid, fields, params = made(name, 16, torch.float64)
        squares, gradient = measured(name, Window(grid), fields.requires_grad_(), params)
        for term, square in squares.items():
            near(sum(rank[name][0][term] for rank in ranks), square, 1e-12)
        near(torch.cat([rank[name][1] for rank in ranks], dim=-2), gradient, 1e-12)


def test_an_equation_without_splits_is_not_split():
    class Whole(Heat):
        splits = False

    pde = Whole.from_params({"frames": 5})
    window = TileWindow(pde.grid(16), Cut.even(16, 2), Space(0, 2))
    with pytest.raises(UserError, match=r"heat: its residual takes whole fields only; set cluster\.space=1"):
        residual_shares(pde, window, torch.zeros(1, 5, 8, 16), torch.zeros(1, 1))


def corrected(name, window, x, params):
    """Return fields after two solver steps, and the gradient of a rough loss."""
    pde = build_pde(name, {"frames": 5} if name in FRAMES else {})
    found = correct_rows(pde, window, x, params, 2)
    weights = torch.randn(3, len(pde.channels), *window.grid.shape, generator=torch.Generator().manual_seed(9))
    (found * window.crop(weights).to(found)).sum().backward()
    return found.detach(), x.grad


def corrected_on_tiles(rank, world, names, dtype):
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    found = {}
    for name in names:
        for points in POINTS:
            _, grid, fields, params = made(name, points, dtype)
            window = TileWindow(grid, Cut(HEAD_CUTS[world, points]), mesh.space)
            mesh.space.traffic.clear()
            parts = corrected(name, window, window.crop(fields).clone().requires_grad_(), params)
            found[name, points] = *parts, dict(mesh.space.traffic.messages)
    return found


HEAD_CUTS = {(2, 16): (0, 5, 16), (2, 17): (0, 9, 17), (3, 16): (0, 5, 8, 16), (3, 17): (0, 5, 11, 17)}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_solver_steps_on_split_fields_equal_those_on_whole_fields(world, dtype, tolerance):
    ranks = spawn(corrected_on_tiles, world, list(PDES), dtype)
    for name, points in ranks[0]:
        _, grid, fields, params = made(name, points, dtype)
        values, gradient = corrected(name, Window(grid), fields.requires_grad_(), params)
        near(torch.cat([rank[name, points][0] for rank in ranks], dim=-2), values, tolerance)
        near(torch.cat([rank[name, points][1] for rank in ranks], dim=-2), gradient, tolerance)
        assert all(sum(rank[name, points][2].values()) > 0 for rank in ranks)
