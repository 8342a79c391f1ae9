"""Conservation and the first interval of a residual: their values on every equation, and what the dual norm does not see."""

import pytest
import torch

from pidscale.config import UserError
from pidscale.ops.window import Window
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import truths
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import check_measures, residual_shares, residual_squares
from pidscale.pde.terms import EXTRA_MEASURES

NAMES = list(PDES)
STEADY = {"darcy", "poisson", "helmholtz"}
LINES = {"burgers", "stokes"}  # rows are times
POINTS = 16


def rough(pde):
    fields = torch.randn(3, len(pde.channels), POINTS, POINTS, dtype=torch.float64, generator=torch.manual_seed(3))
    return 1.0 + 0.3 * fields, draw_params(pde, 0, "x", range(3))


@pytest.mark.parametrize("name", NAMES)
def test_extra_measures_are_computed_from_the_interior_term(name):
    pde = build_pde(name)
    window = Window(pde.grid(POINTS))
    fields, params = rough(pde)
    extra = ["conservation"] if name in STEADY else list(EXTRA_MEASURES)
    found = residual_shares(pde, window, fields, params, extra)
    term = pde.residual(window, fields, params)["interior"]
    space = (-1,) if name in LINES else (-2, -1)
    means = term.values.mean(dim=space) / term.scale
    torch.testing.assert_close(found["conservation"], means.square().reshape(3, -1).mean(dim=1))
    if name not in STEADY:
        torch.testing.assert_close(found["initial"], (term.values[:, 0] / term.scale).square().flatten(1).mean(dim=1))
    assert all((found[k] > 0).all() for k in extra)
    assert residual_squares(pde, window.grid, fields, params).keys() == {"l2", "dual", "boundary"}


@pytest.mark.parametrize("name", NAMES)
def test_truths_score_low_in_extra_measures(name):
    """Lower than fields to whose solution a smooth ramp is added."""
    pde = build_pde(name)
    grid = pde.grid(32)
    fields, params = truths(pde, 0, range(6), grid)
    wrong = fields.clone()
    mask = torch.tensor([c.role == "solution" for c in pde.channels])[:, None, None] & pde.unknown(grid)
    wrong[:, mask] += torch.linspace(0.1, 0.6, int(mask.sum()), dtype=fields.dtype) ** 2 * fields.std()
    extra = ["conservation"] if name in STEADY else list(EXTRA_MEASURES)
    true, other = (residual_shares(pde, Window(grid), x, params, extra) for x in (fields, wrong))
    for k in extra:
        assert true[k].mean() < 0.05 * other[k].mean(), k


def test_conservation_sees_what_the_dual_norm_does_not():
    """On a periodic grid: a temperature that grows at the same rate everywhere."""
    pde = build_pde("heat", {"frames": 5})
    grid = pde.grid(POINTS)
    fields, params = truths(pde, 0, range(4), grid)
    growing = fields + torch.arange(5.0)[:, None, None]
    before, after = (residual_shares(pde, Window(grid), x, params, ["conservation"]) for x in (fields, growing))
    torch.testing.assert_close(after["dual"], before["dual"], rtol=0, atol=1e-12)
    assert (before["conservation"] < 1e-20).all()
    rate = 4 / pde.params.duration  # intervals a unit of time, each of which adds 1
    torch.testing.assert_close(after["conservation"], torch.full((4,), (rate / pde.residual_scale) ** 2).double())


def test_gradients_of_conservation_are_uniform_in_space():
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
