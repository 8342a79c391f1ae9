"""Budgets and the first interval of a residual: as they say, on every equation, and what the dual norm does not see."""

import pytest
import torch

from pidscale.config import UserError
from pidscale.ops.window import Window
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import truths
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import check_measures, residual_shares, residual_squares
from pidscale.pde.terms import EXTRA_MEASURES

NAMES = [name for name in PDES if name != "own"]
STEADY = {"darcy", "poisson", "helmholtz"}
LINES = {"burgers", "stokes"}  # rows are times
POINTS = 16


def rough(pde):
    fields = torch.randn(3, len(pde.channels), POINTS, POINTS, dtype=torch.float64, generator=torch.manual_seed(3))
    return 1.0 + 0.3 * fields, draw_params(pde, 0, "x", range(3))


@pytest.mark.parametrize("name", NAMES)
def test_budgets_and_first_intervals_are_what_they_say(name):
    pde = build_pde(name)
    window, (fields, params) = Window(pde.grid(POINTS)), rough(pde)
    more = ["conservation"] if name in STEADY else list(EXTRA_MEASURES)
    found = residual_shares(pde, window, fields, params, more)
    term = pde.residual(window, fields, params)["interior"]
    space = (-1,) if name in LINES else (-2, -1)
    budgets = term.values.mean(dim=space) / term.scale
    torch.testing.assert_close(found["conservation"], budgets.square().reshape(3, -1).mean(dim=1))
    if name not in STEADY:
        torch.testing.assert_close(found["initial"], (term.values[:, 0] / term.scale).square().flatten(1).mean(dim=1))
    assert all((found[k] > 0).all() for k in more)
    assert residual_squares(pde, window.grid, fields, params).keys() == {"l2", "dual", "boundary"}


@pytest.mark.parametrize("name", NAMES)
def test_truths_keep_their_budgets(name):
    """Beside fields that have a little more of the solution here than there."""
    pde = build_pde(name)
    grid = pde.grid(32)
    fields, params = truths(pde, 0, range(6), grid)
    wrong = fields.clone()
    mask = torch.tensor([c.role == "solution" for c in pde.channels])[:, None, None] & pde.unknown(grid)
    wrong[:, mask] += torch.linspace(0.1, 0.6, int(mask.sum()), dtype=fields.dtype) ** 2 * fields.std()
    more = ["conservation"] if name in STEADY else list(EXTRA_MEASURES)
    true, other = (residual_shares(pde, Window(grid), x, params, more) for x in (fields, wrong))
    for k in more:
        assert true[k].mean() < 0.05 * other[k].mean(), k


def test_the_dual_norm_is_blind_to_what_is_not_conserved():
    """On a periodic grid: mass that grows at an even rate everywhere."""
    pde = build_pde("heat", {"frames": 5})
    grid = pde.grid(POINTS)
    fields, params = truths(pde, 0, range(4), grid)
    growing = fields + torch.arange(5.0)[:, None, None]
    before, after = (residual_shares(pde, Window(grid), x, params, ["conservation"]) for x in (fields, growing))
    torch.testing.assert_close(after["dual"], before["dual"], rtol=0, atol=1e-12)
    assert (before["conservation"] < 1e-20).all()
    rate = 4 / pde.params.duration  # frames a unit of time, each of which adds 1
    torch.testing.assert_close(after["conservation"], torch.full((4,), (rate / pde.residual_scale) ** 2).double())


def test_gradients_of_a_budget_are_even_in_space():
    pde = build_pde("heat", {"frames": 4})
    fields, params = rough(pde)
    x = fields.requires_grad_()
    residual_shares(pde, Window(pde.grid(POINTS)), x, params, ["conservation"])["conservation"].sum().backward()
    assert (x.grad.std(dim=(2, 3)) < 1e-9 * x.grad.abs().amax()).all() and (x.grad.abs().amax() > 0)


def test_a_steady_equation_has_no_first_interval():
    pde = build_pde("poisson")
    with pytest.raises(UserError, match=r"distill\.weights\.initial: poisson is steady"):
        check_measures(pde, pde.grid(POINTS), ["initial"])
    check_measures(pde, pde.grid(POINTS), ["conservation"])
    check_measures(build_pde("heat"), build_pde("heat").grid(POINTS), list(EXTRA_MEASURES))
