"""CoCoGen: a correction never raises the residual, and without corrections the samples are the teacher's."""

from __future__ import annotations

import pytest
import torch

from pidscale.config import UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.methods.base import ask
from pidscale.methods.cocogen import CoCoGen, corrected
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.pde.residuals import residual_squares
from tests.methods.gaussians import GRID, PDE, UNITS, question, teacher


def test_without_corrections_it_is_the_sampler_of_the_teacher_to_the_bit() -> None:
    made = teacher(EdmNoise())
    found = ask(CoCoGen(9, during=0, after=0), made, question(), 5)
    assert torch.equal(found.samples.fields, ask(ProbabilityFlow(9), made, question(), 5).samples.fields)
    assert found.cost.residuals == 0


def test_every_correction_lowers_the_residual_of_every_sample() -> None:
    made = teacher(EdmNoise())
    x = made.generate(question(6).eps_NCYX, question(6).params_NP)

    def size(x: torch.Tensor) -> torch.Tensor:
        squares = residual_squares(PDE, GRID, UNITS.decode(x))
        return squares["l2"] + squares["boundary"]

    first = before = size(x)
    for _ in range(20):
        x = corrected(made, x, question(6).params_NP)
        after = size(x)
        assert (after < before).all()
        before = after
    assert (before < 0.5 * first).all()


def test_a_field_without_a_residual_stays_as_it_is() -> None:
    flat = UNITS.encode(torch.zeros(2, 2, *GRID.shape, dtype=torch.float64))
    exact = UNITS.decode(flat)
    assert residual_squares(PDE, GRID, exact)["l2"].max() < 1e-20
    torch.testing.assert_close(corrected(teacher(), flat, torch.zeros(2, 0)), flat, rtol=0, atol=1e-9)


def test_corrections_come_in_the_last_fifth_of_the_steps_and_after_them() -> None:
    costs = [
        ask(CoCoGen(10, during, after), teacher(EdmNoise()), question(), 5).cost for during, after in ((1, 0), (0, 3))
    ]
    assert all(cost.calls == 19 and cost.gradients == 0 for cost in costs)
    assert 2 * 2 <= costs[0].residuals <= 2 * 11 and 3 * 2 <= costs[1].residuals <= 3 * 11
    for settings in ({"steps": 0}, {"during": -1}, {"after": -1}):
        with pytest.raises(UserError, match=r"method\.\w+=-?\d: expected"):
            CoCoGen(**settings)
