"""Suggested sensors lower the posterior variance most: against the closed form of a linear student."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.generator.student import Student
from pidscale.generator.tasks.suggest import best_sensors
from pidscale.ops.grid import Grid
from tests.generator.linear import gaussian_posterior, linear_student

SIGMA = {"source": 0.5, "solution": 0.02}


@pytest.fixture(scope="module")
def student() -> Student:
    return linear_student("poisson")


def exact_gains(covariance: Tensor, noise: Tensor, free: Tensor) -> Tensor:
    """The share of the variance that a reading at each place removes, [D]; -1 where there may be none."""
    gains = covariance.square().sum(dim=0) / (covariance.diagonal() + noise)
    return torch.where(free, gains / covariance.trace(), -1.0)


def test_they_are_those_of_the_closed_form(student: Student) -> None:
    values = student.sample(1, seed=7)
    known = torch.zeros(2, 4, 4, dtype=torch.bool)
    known[1, 1, 2] = known[1, 3, 0] = known[0, 2, 2] = True
    mask = {name: known[c] for c, name in enumerate(student.channels)}
    found = student.suggest(values, 3, mask, SIGMA, draws=2000, steps=80)
    sigma = torch.tensor([*SIGMA.values()], dtype=torch.float64)[:, None, None]
    joint = torch.cat([*values.values()])
    _, covariance = gaussian_posterior(student, joint, known, sigma)
    std = torch.tensor(student.normaliser.std, dtype=torch.float64).repeat_interleave(16)
    covariance = covariance / std[:, None] / std
    noise = (sigma.expand(2, 4, 4).flatten() / std).square()
    free = ~known.flatten()
    assert len({(one.channel, one.y, one.x) for one in found}) == 3
    for one in found:
        place = student.channels.index(one.channel) * 16 + one.y * 4 + one.x
        gains = exact_gains(covariance, noise, free)
        assert float(gains[place]) > 0.9 * float(gains.max()) and one.gain == pytest.approx(
            float(gains[place]), rel=0.2
        )
        row = covariance[place]
        covariance = covariance - torch.outer(row, row) / (row[place] + noise[place])
        free[place] = False


def test_only_channels_that_may_be_read_are_suggested_and_only_the_variance_that_is_asked_about_counts(
    student: Student,
) -> None:
    values = {"solution": torch.full((4, 4), torch.nan)}
    values["solution"][0, 0] = 0.2
    how = {"sigma": 0.01, "draws": 40, "steps": 20}
    assert {one.channel for one in student.suggest(values, 4, **how)} == {"solution"}
    assert {one.channel for one in student.suggest(values, 4, reads=["source"], **how)} == {"source"}
    about = student.suggest(values, 2, about=["source"], reads=["source"], **how)
    both = student.suggest(values, 2, reads=["source"], **how)
    assert about[0].gain > both[0].gain
    assert len(student.suggest(values, 99, **how)) == 15  # all that are left
    height, width = student.grid.spacing
    assert all((one.y_coord, one.x_coord) == (one.y * height, one.x * width) for one in both)


def test_samples_that_were_drawn_give_the_same_without_another_draw(student: Student) -> None:
    values = {"solution": torch.full((4, 4), torch.nan)}
    values["solution"][0, 0] = 0.2
    draws = student.posterior("reconstruct", values, count=8, sigma=0.01, steps=10)
    found = student.suggest(values, 2, sigma=0.01, drawn=draws)
    assert found == student.suggest(values, 2, sigma=0.01, draws=8, steps=10)
    wider = draws.samples["solution"].clone()
    wider[:, :, 3, 3] += 10 * torch.arange(8.0)
    other = replace(draws, samples=draws.samples | {"solution": wider})
    (best,) = student.suggest(values, 1, sigma=0.01, drawn=other)
    assert (best.y, best.x) == (3, 3) != (found[0].y, found[0].x)


def test_chance_adds_nothing() -> None:
    """Samples that are independent at every point: a sensor removes the variance of its own point, one of 200."""
    samples = torch.randn(20, 1, 10, 20, generator=torch.Generator().manual_seed(0))
    free = torch.ones(1, 10, 20, dtype=torch.bool)
    found = best_sensors(samples, torch.tensor([0.1]), free, torch.tensor([True]), ["u"], Grid((10, 20)), 1)
    assert found[0].gain < 0.03  # without the correction, about a twentieth


def test_no_variance_is_no_suggestion() -> None:
    free = torch.ones(1, 4, 4, dtype=torch.bool)
    assert not best_sensors(
        torch.ones(5, 1, 4, 4), torch.tensor([0.1]), free, torch.tensor([True]), ["u"], Grid((4, 4)), 2
    )


def test_mistakes_are_one_line(student: Student) -> None:
    values = student.sample(2, seed=7)
    one = {"solution": torch.full((4, 4), torch.nan)}
    one["solution"][0, 0] = 0.2
    two = student.posterior("reconstruct", values, count=2, steps=2)
    for call, words in (
        (lambda: student.suggest(values), "values: 2 fields; suggest takes one at a time"),
        (lambda: student.suggest(values, 0), "count=0"),
        (lambda: student.suggest(values, reads=["sorce"]), "reads: no channel 'sorce'"),
        (lambda: student.suggest(values, about=["x"]), "about: no channel 'x'"),
        (lambda: student.suggest(values["source"][:1]), "values: shape"),
        (lambda: student.suggest(one, draws=1), "draws=1"),
        (lambda: student.suggest(one, drawn=values), "drawn: a dict, expected what posterior returns"),
        (lambda: student.suggest(one, drawn=two), "drawn: samples of 2 fields"),
        (lambda: student.suggest(one, drawn=replace(two, mean={})), "drawn: found by another generator"),
    ):
        with pytest.raises(UserError) as raised:
            call()
        assert words in str(raised.value) and "\n" not in str(raised.value)
