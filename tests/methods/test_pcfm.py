"""PCFM: constraints hold to the tolerance of the solver, and a projection is that of a dense Jacobian."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.tasks.observations import observe
from pidscale.methods.base import Question, ask
from pidscale.methods.eci import Eci
from pidscale.methods.pcfm import DAMPING, Constraints, Pcfm
from pidscale.pde import build_pde
from pidscale.pde.residuals import residual_squares
from tests.methods.gaussians import GRID, PDE, UNITS, question, student, teacher


def known(n: int = 4) -> Question:
    """Return a question of n samples in which every third point of the source is known."""
    mask = torch.arange(64).reshape(8, 8) % 3 == 0
    seen = observe(student(), "reconstruct", {"source": student().sample(n, seed=9)["source"]}, mask)
    return dataclasses.replace(question(n), task="reconstruct", known=seen)


def test_without_constraints_it_is_the_sampler_that_keeps_its_noise() -> None:
    found = ask(Pcfm(9, physics=False), teacher(), question(), 5).samples.fields
    assert torch.equal(found, ask(Eci(9, noise="drawn"), teacher(), question(), 5).samples.fields)


def test_known_values_hold_and_leave_other_points_alone() -> None:
    asked = known()
    assert asked.known is not None
    seen = asked.known
    found = ask(Pcfm(9, physics=False), teacher(), asked, 4).samples.fields
    torch.testing.assert_close(found[seen.known_NCYX], seen.values_NCYX[seen.known_NCYX], rtol=1e-5, atol=1e-5)
    plain = ask(Pcfm(9, physics=False), teacher(), question(4), 4).samples.fields
    torch.testing.assert_close(found[~seen.known_NCYX], plain[~seen.known_NCYX], rtol=1e-5, atol=1e-5)


def test_the_equation_and_known_values_hold_together() -> None:
    asked = known()
    assert asked.known is not None
    found = ask(Pcfm(20), teacher(), asked, 4).samples.fields
    squares = residual_squares(PDE, GRID, found.double())
    assert squares["l2"].sqrt().max() < 1e-3 and squares["boundary"].sqrt().max() < 1e-3
    away = UNITS.encode(found) - UNITS.encode(asked.known.values_NCYX)
    assert away[asked.known.known_NCYX].abs().max() < 1e-3


@pytest.mark.parametrize("name", ["poisson", "darcy", "burgers"])
def test_a_projection_is_that_of_a_dense_jacobian(name: str) -> None:
    """Of both channels at once, and of a nonlinear equation as its linearisation at the field."""
    pde = build_pde(name)
    grid = pde.grid(6)
    channels = len(pde.channels)
    units = Normaliser(*(((3.0, 0.1), (2.0, 0.3)) if channels == 2 else ((0.0,), (0.5,))))
    made: Any = dataclasses.replace(teacher(), pde=pde, grid=grid, normaliser=units)
    draws = torch.randn(2, channels, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i in range(2):
        u = draws[i : i + 1]
        asked = dataclasses.replace(question(1), params_NP=torch.zeros(1, 0))
        constraints = Constraints(made, asked, physics=True)
        fixed = constraints.fixed_NCYX
        assert fixed.any() == (name != "burgers")
        u = torch.where(fixed, constraints.values_NCYX.double(), u)

        def joined(u: Tensor, own: Constraints = constraints) -> Tensor:
            return torch.cat([part.flatten(1) for part in own.residual(u).values()], dim=1)

        jacobian = torch.autograd.functional.jacobian(joined, u)[0].flatten(1)  # [M, C Y X]
        jacobian[:, fixed.flatten()] = 0.0
        system = jacobian @ jacobian.T + DAMPING * torch.eye(len(jacobian), dtype=torch.float64)
        step = jacobian.T @ torch.linalg.solve(system, joined(u)[0])
        found = constraints.projected(draws[i : i + 1], 200)
        torch.testing.assert_close(found.flatten(), u.flatten() - step, rtol=1e-6, atol=1e-7)


def test_the_preconditioner_saves_steps_where_the_grid_is_fine() -> None:
    """Behind ten conjugate gradients, the residual that is left with it is a hundredth of that without."""
    grid = PDE.grid(33)
    left = []
    for kind in ("node", "plain"):
        made: Any = dataclasses.replace(teacher(), grid=grid)
        draws = torch.randn(2, 2, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        constraints = Constraints(made, question(2), physics=True)
        if kind == "plain":
            constraints = _Unconditioned(made, question(2), physics=True)
        found = constraints.projected(draws, 10)
        left.append(float(residual_squares(PDE, grid, UNITS.decode(found))["l2"].mean().sqrt()))
    assert left[0] < 0.01 * left[1]


class _Unconditioned(Constraints):
    """The same constraints without a preconditioner."""

    def _preconditioner(self, *_: Any) -> Any:
        return lambda dual: dual


def test_wrong_settings_and_other_teachers_are_one_line() -> None:
    for settings in ({"steps": 0}, {"inner": 0}, {"final": -1}):
        with pytest.raises(UserError, match=r"method\.\w+=-?\d: expected"):
            Pcfm(**settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="teacher:flow"):
        ask(Pcfm(), teacher(EdmNoise()), question(), 5)
