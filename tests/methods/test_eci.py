"""ECI sampling: known values hold exactly, and without known values it is Euler's sampler of the flow."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pidscale.config import UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.generator.tasks.observations import observe
from pidscale.methods.base import Question, ask
from pidscale.methods.eci import Eci
from pidscale.methods.probability_flow import ProbabilityFlow
from tests.methods.gaussians import MEAN, SPREAD, UNITS, question, student, teacher

NOISES = ("state", "drawn")


def known(n: int = 4) -> Question:
    """Return a question of n samples in which every third point of both channels is known."""
    fields = student().sample(n, seed=9)
    mask = torch.arange(64).reshape(8, 8) % 3 == 0
    return dataclasses.replace(question(n), task="reconstruct", known=observe(student(), "reconstruct", fields, mask))


@pytest.mark.parametrize("steps", [1, 3, 50])
@pytest.mark.parametrize("mix", [1, 3])
def test_without_known_values_it_is_the_euler_sampler(steps: int, mix: int) -> None:
    asked = dataclasses.replace(
        question(), eps_NCYX=question().eps_NCYX.double()
    )  # levels of 1000 cost float32 its digits
    plain = ask(ProbabilityFlow(steps, "euler"), teacher(), asked, 5).samples.fields
    found = ask(Eci(steps, mix), teacher(), asked, 5).samples.fields
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("noise", NOISES)
def test_known_values_hold_exactly(noise: str) -> None:
    asked = known()
    assert asked.known is not None
    seen = asked.known
    for settings in (Eci(20, noise=noise), Eci(7, 3, noise)):
        found = ask(settings, teacher(), asked, 4).samples.fields
        assert torch.equal(found[seen.known_NCYX], seen.values_NCYX[seen.known_NCYX])  # to the bit
        assert found.isfinite().all()


@pytest.mark.parametrize("noise", NOISES)
def test_points_that_are_independent_of_the_known_ones_keep_their_distribution(noise: str) -> None:
    """No point of these data depends on another, so unknown points are sampled as if nothing were known."""
    asked = known()
    assert asked.known is not None
    unknown = ~asked.known.known_NCYX
    plain = ask(Eci(40, noise=noise), teacher(), dataclasses.replace(asked, known=None, task="sample"), 4)
    found = ask(Eci(40, noise=noise), teacher(), asked, 4)
    torch.testing.assert_close(found.samples.fields[unknown], plain.samples.fields[unknown], rtol=1e-5, atol=1e-5)


def test_it_converges_to_the_exact_map_of_the_flow() -> None:
    """The flow maps noise e to m + s e for points N(m, s^2)."""
    asked = question(16)
    exact = UNITS.decode(MEAN + SPREAD * asked.eps_NCYX)
    errors = []
    for steps in (50, 100, 200):
        found = ask(Eci(steps), teacher(), asked, 16).samples.fields
        errors.append(float((found - exact).square().mean().sqrt() / exact.std()))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15) and errors[1] / errors[2] == pytest.approx(2, rel=0.15)
    assert errors[-1] < 0.02


def test_the_published_form_keeps_its_noise_or_draws_new_noise() -> None:
    asked = question()
    once = ask(Eci(6, noise="drawn"), teacher(), asked, 5).samples.fields
    again = ask(Eci(6, noise="drawn", resample=2), teacher(), asked, 5).samples.fields
    assert not torch.allclose(once, again)
    torch.testing.assert_close(again, ask(Eci(6, noise="drawn", resample=2), teacher(), asked, 2).samples.fields)


def test_wrong_settings_and_other_teachers_are_one_line() -> None:
    for make, words in (
        (lambda: Eci(steps=0), "method.steps=0"),
        (lambda: Eci(mix=0), "method.mix=0"),
        (lambda: Eci(noise="white"), "method.noise='white'"),
        (lambda: Eci(resample=3), "method.resample=3"),
        (lambda: ask(Eci(), teacher(EdmNoise()), question(), 5), "teacher:flow"),
    ):
        with pytest.raises(UserError, match=words):
            make()
