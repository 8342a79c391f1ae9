"""D-Flow: with one linear step it is the closed-form answer, and with nothing to search for the teacher's sample."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pidscale.config import UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.generator.tasks.observations import observe
from pidscale.methods.base import Question, ask
from pidscale.methods.d_flow import DFlow
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.pde.residuals import residual_squares
from tests.methods.gaussians import GRID, MEAN, PDE, SPREAD, UNITS, question, student, teacher


def known(n: int = 4) -> Question:
    """Return a question of n samples in which every third point of both channels is known, with noise."""
    fields = student().sample(n, seed=9)
    mask = torch.arange(64).reshape(8, 8) % 3 == 0
    seen = observe(student(), "reconstruct", fields, mask, {"source": 0.5, "solution": 0.02})
    return dataclasses.replace(question(n), task="reconstruct", known=seen)


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_with_one_linear_step_it_is_the_least_squares_answer(prior: float) -> None:
    """One step leads from e to D(sigma e, sigma) = m + k e, so that every known point is a problem of its own."""
    asked = known()
    assert asked.known is not None
    level = EdmNoise().levels(1).tolist()[0]
    k = SPREAD**2 / (SPREAD**2 + level**2) * level
    offset = MEAN - SPREAD**2 / (SPREAD**2 + level**2) * MEAN
    sigma = asked.known.sigma_NC[:, :, None, None] / torch.tensor(UNITS.std)[:, None, None]  # in units of the model
    values = UNITS.encode(asked.known.values_NCYX)
    found = ask(DFlow(1, 200, physics=0, prior=prior), teacher(EdmNoise()), asked, 4).samples.fields
    best = (values - offset) * k / sigma**2 / (k**2 / sigma**2 + prior)
    free = torch.zeros_like(best) if prior else asked.eps_NCYX  # where nothing is known
    eps = torch.where(asked.known.known_NCYX, best, free)
    torch.testing.assert_close(found, UNITS.decode(offset + k * eps), rtol=1e-2, atol=5e-3)


def test_with_nothing_to_search_for_it_is_the_sample_of_the_teacher() -> None:
    made = teacher(EdmNoise())
    found = ask(DFlow(6, 3, physics=0), made, question(), 5).samples.fields
    torch.testing.assert_close(found, ask(ProbabilityFlow(6, "dpm2m"), made, question(), 5).samples.fields)


def test_a_sample_is_searched_for_a_smaller_residual() -> None:
    made = teacher(EdmNoise())
    plain = ask(ProbabilityFlow(6, "dpm2m"), made, question(), 5).samples
    found = ask(DFlow(6, 40), made, question(), 5)
    before, after = (residual_squares(PDE, GRID, one.fields)["l2"] for one in (plain, found.samples))
    assert (after < 0.1 * before).all() and found.cost.gradients > 6


def test_wrong_settings_are_one_line() -> None:
    for settings in ({"steps": 0}, {"iterations": 0}, {"physics": -1.0}, {"prior": float("nan")}):
        with pytest.raises(UserError, match=r"method\.\w+=\S+: expected"):
            DFlow(**settings)  # type: ignore[arg-type]
