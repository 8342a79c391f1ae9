"""Flow between two wells, the example that has PIDM's data: truths, its measure of a null field, solver steps, tiles."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from pidscale.config import UserError
from pidscale.engine.window import TileWindow
from pidscale.ops.window import Window
from pidscale.parallel.mesh import Mesh
from pidscale.parallel.split import Cut
from pidscale.pde import build_pde
from pidscale.pde.base import shuffled, truths
from pidscale.pde.head import correct, correct_rows
from pidscale.pde.residuals import residual_mean_abs, residual_rms, residual_shares, residual_squares
from tests.ranks import spawn
from tests.scripts import ROOT

EXAMPLES = str(ROOT / "docs" / "examples")
NAME = "wells:Wells"
UNEVEN = (0, 5, 16)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def test_truths_score_far_below_null_and_shuffled_solutions() -> None:
    pde = build_pde(NAME)
    grid = pde.grid(32)
    fields, params = truths(pde, 0, range(6), grid)
    found = [
        residual_rms(pde, grid, f, params) for f in (fields.float(), pde.trivial(fields), shuffled(pde, grid, fields))
    ]
    for norm in ("l2", "dual"):
        assert found[0][norm] < 1e-3 * min(found[1][norm], found[2][norm])
    assert found[1]["l2"] == pytest.approx(1) and found[1]["dual"] == pytest.approx(1)
    assert fields[:, 1].mean(dim=(1, 2)).abs().max() < 1e-12  # the mean is part of the residual
    assert residual_rms(pde, grid, fields + torch.tensor([0.0, 0.07])[:, None, None], params)["boundary"] > 0.5


@pytest.mark.parametrize("points", [16, 20, 64])
def test_a_null_field_has_the_published_value_of_its_measure(points: int) -> None:
    """The mean of |R| over the channels of the equation and of both edges, of which two are 0: 20 / 64 / 3."""
    pde = build_pde(NAME)
    grid = pde.grid(points)
    fields, params = truths(pde, 0, range(2), grid)
    null = residual_mean_abs(pde, grid, pde.trivial(fields), params) * pde.residual_scale / 3
    assert null == pytest.approx(0.104, abs=5e-4)
    assert residual_mean_abs(pde, grid, fields, params) * pde.residual_scale / 3 < 1e-10


def test_the_permeability_has_its_covariance_on_every_grid() -> None:
    pde = build_pde(NAME, {"modes": 400})
    coarse, fine = (truths(pde, 0, range(200), pde.grid(n)).fields[:, 0].log() for n in (8, 24))
    torch.testing.assert_close(fine[:, 1::3, 1::3], coarse)  # the same function at the same places
    assert 0.75 < float(coarse.var()) < 1.02  # what 400 modes keep of 1
    apart = float((coarse[:, :, :-1] * coarse[:, :, 1:]).mean() / coarse.pow(2).mean())
    assert apart == pytest.approx(np.exp(-1 / 8 / 0.1), abs=0.1)


def test_solver_steps_lead_to_the_truth_and_leave_it_there() -> None:
    pde = build_pde(NAME)
    grid = pde.grid(16)
    fields, params = truths(pde, 0, range(3), grid)
    size = fields[:, 1].flatten(1).norm(dim=1)
    for steps, least in ((8, 0.1), (24, 1e-4)):
        found = correct(pde, grid, pde.trivial(fields), params, steps)
        assert ((found - fields).flatten(1).norm(dim=1) < least * size).all()
        assert torch.equal(found[:, 0], fields[:, 0])
    assert ((correct(pde, grid, fields, params, 4) - fields).flatten(1).norm(dim=1) < 1e-10 * size).all()
    small = pde.grid(4)
    rough = _rough()[:1, :, :4, :4].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: correct(pde, small, x, None, 2), (rough,))
    low = fields.clone()
    low[0, 0, 3, 3] = -1.0
    assert pde.refused(low).tolist() == [1, 0, 0] and correct(pde, grid, low, params, 4).isfinite().all()


def _tiled(rank: int, world: int) -> Any:
    sys.path.insert(0, EXAMPLES)
    mesh = Mesh.over(rank, world, torch.device("cpu"), world)
    pde = build_pde(NAME)
    window = TileWindow(pde.grid(16), Cut(UNEVEN), mesh.space)
    x = window.crop(_rough()).clone().requires_grad_()
    shares = residual_shares(pde, window, x, None)
    sum(value.sum() for value in shares.values()).backward()
    with torch.no_grad():
        corrected = correct_rows(pde, window, x, torch.zeros(2, 0), 3)
    return {name: value.detach() for name, value in shares.items()}, x.grad, corrected


def _rough() -> torch.Tensor:
    fields = torch.randn(2, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return 1.0 + 0.3 * fields


def test_a_field_on_two_ranks_has_the_residual_and_the_steps_of_the_whole_one() -> None:
    ranks = spawn(_tiled, 2)
    pde = build_pde(NAME)
    grid = pde.grid(16)
    x = _rough().requires_grad_()
    squares = residual_squares(pde, grid, x, None)
    sum(value.sum() for value in squares.values()).backward()
    for name, value in squares.items():
        torch.testing.assert_close(sum(rank[0][name] for rank in ranks), value.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.cat([rank[1] for rank in ranks], dim=2), x.grad, rtol=1e-10, atol=1e-12)
    whole = correct_rows(pde, Window(grid), _rough(), torch.zeros(2, 0), 3)
    torch.testing.assert_close(torch.cat([rank[2] for rank in ranks], dim=2), whole, rtol=1e-10, atol=1e-12)


def test_a_value_out_of_range_is_one_line() -> None:
    with pytest.raises(UserError, match=r"pde\.params\.modes"):
        build_pde(NAME, {"modes": 401})
