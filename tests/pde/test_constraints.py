"""Hard constraints: exact on any field, without effect on truths, and differentiable."""

from __future__ import annotations

import pytest
import torch

from pidscale.config import UserError
from pidscale.ops.window import Window
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import truths
from pidscale.pde.constraints import CONSTRAINTS, STEPS, check_constraints, constrain
from pidscale.pde.head import correct
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_squares

PAIRS = [(name, kind) for name in sorted(PDES) for kind in build_pde(name).constraints]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_constraint_changes_no_truth_and_holds_for_any_field(name: str, kind: str) -> None:
    pde = build_pde(name)
    grid = pde.grid(16)
    fields, _ = truths(pde, 0, range(2), grid)
    assert (constrain(pde, Window(grid), [kind], fields) - fields).abs().max() < 1e-12
    rough = torch.randn(3, len(pde.channels), *grid.shape)
    held = constrain(pde, Window(grid), [kind], rough)
    assert not torch.equal(held, rough)
    torch.testing.assert_close(constrain(pde, Window(grid), [kind], held), held, atol=1e-6, rtol=0)
    if kind == "zero_edge":
        assert residual_squares(pde, grid, held)["boundary"].abs().max() == 0
        assert torch.equal(held[:, 0], rough[:, 0]) and torch.equal(held[:, 1, 1:-1, 1:-1], rough[:, 1, 1:-1, 1:-1])
    elif kind == "two_phase":
        assert set(held[:, 0].unique().tolist()) == {3.0} and torch.equal(held[:, 1], rough[:, 1])
        assert pde.phase_error(held).max() == 0
    else:
        assert held.mean(dim=(2, 3)).abs().max() < 1e-6


@pytest.mark.parametrize("name", [name for name, kind in PAIRS if kind == "zero_edge"])
def test_solver_steps_hold_the_edge_at_zero_by_themselves(name: str) -> None:
    pde = build_pde(name)
    grid = pde.grid(16)
    rough = torch.randn(3, 2, *grid.shape, generator=torch.Generator().manual_seed(0))
    held = constrain(pde, Window(grid), ["zero_edge"], rough)
    params = draw_params(pde, 0, "test", range(3))
    assert torch.equal(correct(pde, grid, rough, params, 2), correct(pde, grid, held, params, 2))


def test_a_coefficient_of_two_phases_has_the_nearer_one_and_its_own_gradient() -> None:
    pde = build_pde("darcy")
    window = Window(pde.grid(5))
    fields = torch.full((1, 2, 5, 5), 7.4)
    fields[0, 0, 1, 1:4] = torch.tensor([7.6, 40.0, -1.0])
    held = constrain(pde, window, ["two_phase"], fields.requires_grad_())
    wanted = torch.full((5, 5), 3.0)
    wanted[1, 1:3] = 12.0
    assert torch.equal(held[0, 0], wanted)  # exactly
    weights = torch.randn(fields.shape)
    (held * weights).sum().backward()
    assert torch.equal(fields.grad, weights)
    assert torch.equal(constrain(pde, window, ["two_phase", "zero_edge"], fields, smooth=True)[:, 0], fields[:, 0])
    with pytest.raises(UserError, match="darcy has no 'two_phase'; it has: zero_edge"):
        check_constraints(build_pde("darcy", {"variant": "log_normal"}), ["two_phase"])


@pytest.mark.parametrize("kind", sorted(set(CONSTRAINTS) - set(STEPS)))
def test_gradients_pass_through(kind: str) -> None:
    pde = build_pde("darcy")
    fields = torch.rand(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: constrain(pde, Window(pde.grid(5)), [kind], x), (fields,))


def test_a_constraint_of_another_equation_is_refused() -> None:
    assert {kind for _, kind in PAIRS} == set(CONSTRAINTS)
    check_constraints(build_pde("wave"), ["zero_mean"])
    for name, kind, words in (("wave", "zero_edge", "zero_mean"), ("stokes", "zero_mean", "none")):
        with pytest.raises(UserError, match=rf"distill\.constraints: {name} has no '{kind}'; it has: {words}"):
            check_constraints(build_pde(name), [kind])
