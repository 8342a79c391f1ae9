"""Posterior samples are exact for a linear student, and scores distinguish good samples from bad ones."""

from __future__ import annotations

import math

import pytest
import torch

from pidscale.config import UserError
from pidscale.generator.tasks.posterior import Posterior, coverage, crps, interval
from tests.generator.linear import gaussian_posterior, linear_student

SIGMA = {"source": 0.3, "solution": 0.002}


def noisy(count: int) -> tuple:
    """Return a linear student, truths drawn from it, noisy values, where they are known, and the noise."""
    student = linear_student("poisson")
    g = torch.Generator().manual_seed(5)
    truth = torch.stack([*student.sample(count, seed=77).values()], dim=1)
    known = (torch.rand(2, 4, 4, generator=g) < 0.4).expand(count, 2, 4, 4)
    sigma = torch.tensor([*SIGMA.values()])[:, None, None]
    return student, truth, truth + sigma * torch.randn(truth.shape, generator=g), known, sigma


def drawn(student, values, known, count: int, **how) -> Posterior:
    mask = {name: known[:, c] for c, name in enumerate(student.channels)}
    fields = {name: values[:, c] for c, name in enumerate(student.channels)}
    return student.posterior("reconstruct", fields, count, mask, SIGMA, **{"steps": 120, "batch": 4096} | how)


def test_mean_and_covariance_are_the_exact_ones() -> None:
    count = 4000
    student, _, values, known, sigma = noisy(1)
    mean, covariance = gaussian_posterior(student, values[0], known[0], sigma)
    found = drawn(student, values, known, count)
    samples = torch.stack([found.samples[name][0] for name in student.channels], dim=1).flatten(1).double()
    scale = covariance.diagonal().sqrt()
    assert (((samples.mean(dim=0) - mean) / scale).abs() < 4.5 / math.sqrt(count)).all()
    # in units of the exact posterior, the error of a covariance estimate from K samples is about D / sqrt(K) in norm
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (samples - mean).T, upper=False)
    off = torch.cov(whitened) - torch.eye(len(mean), dtype=torch.float64)
    assert off.norm() < 1.3 * (len(mean) + 1) / math.sqrt(count)
    prior = torch.stack([*student.sample(500).values()], dim=1).flatten(1).double().std(dim=0)
    assert (scale < 0.9 * prior).any()  # the data are informative
    for c, name in enumerate(student.channels):
        own = samples.reshape(count, 2, 4, 4)[:, c]
        torch.testing.assert_close(found.mean[name][0].double(), own.mean(dim=0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.spread[name][0].double(), own.std(dim=0), rtol=1e-4, atol=1e-6)


def test_intervals_cover_truths_at_their_level() -> None:
    student, truth, values, known, _ = noisy(150)
    found = drawn(student, values, known, 31, steps=60)
    for c, name in enumerate(student.channels):
        share = coverage(found.samples[name], truth[:, c])
        assert abs(share - 0.9) < 0.03
        inside = (found.low[name] <= truth[:, c]) & (truth[:, c] <= found.high[name])
        assert share == pytest.approx(float(inside.double().mean()))
        score = crps(found.samples[name], truth[:, c])
        assert score < 0.85 * float((found.mean[name] - truth[:, c]).abs().mean())
        assert score < 0.8 * crps(found.samples[name].roll(1, dims=0), truth[:, c])  # of another observation


def test_a_sample_depends_only_on_its_number() -> None:
    student, _, values, known, _ = noisy(2)
    five = drawn(student, values, known, 5, steps=30)
    for other in (drawn(student, values, known, 3, steps=30), drawn(student, values, known, 5, steps=30, batch=2)):
        for name, samples in other.samples.items():
            torch.testing.assert_close(samples, five.samples[name][:, : samples.shape[1]], rtol=1e-2, atol=1e-3)
    assert not torch.allclose(
        drawn(student, values, known, 5, steps=30, seed=1).samples["source"], five.samples["source"]
    )
    assert five.mismatch.shape == (2, 5) and five.residual["l2"].shape == (2, 5) and five.calls.shape == (2,)


def test_unknown_parameters_are_sampled_too() -> None:
    student = linear_student("heat", frames=4)
    low, high = student.pde.varying["diffusivity"]
    values = student.differentiable(torch.zeros(1, 4, 4, 4), torch.tensor([[0.5 * (low + high)]]))
    wide = student.posterior("reconstruct", values, 40, sigma=100.0, steps=40).samples["diffusivity"][0]
    sharp = student.posterior("reconstruct", values, 40, sigma=0.1, steps=40).samples["diffusivity"][0]
    assert wide.min() >= low and wide.max() <= high
    assert wide.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.25)  # without information: uniform
    assert sharp.std() < 0.6 * wide.std()


def test_an_interval_is_between_order_statistics() -> None:
    samples = torch.randperm(19, generator=torch.Generator().manual_seed(0)).float()[None]
    assert [float(end) for end in interval(samples)] == pytest.approx([0.0, 18.0])
    assert [float(end) for end in interval(samples, 0.8)] == pytest.approx([1.0, 17.0])
    assert [float(end) for end in interval(samples, 0.5)] == pytest.approx([4.0, 14.0])
    assert [float(end) for end in interval(torch.tensor([[3.0, 1.0]]))] == [1.0, 3.0]
    g = torch.Generator().manual_seed(3)
    draws = torch.randn(20000, 24, generator=g)  # the truth is one more draw of the same distribution
    assert coverage(draws[:, 1:], draws[:, 0]) == pytest.approx(0.9, abs=0.008)
    assert coverage(2 * draws[:, 1:], draws[:, 0]) > 0.98 and coverage(draws[:, 1:] / 2, draws[:, 0]) < 0.65


def test_crps_of_a_normal_distribution_is_exact() -> None:
    g = torch.Generator().manual_seed(4)
    wanted = (math.sqrt(2) - 1) / math.sqrt(math.pi)  # of N(0, 1) at 0 (Gneiting and Raftery, 2007)
    assert crps(torch.randn(4000, 3, generator=g), torch.zeros(4000)) == pytest.approx(wanted, abs=0.03)
    assert crps(torch.randn(10, 4000, generator=g), torch.zeros(10)) == pytest.approx(wanted, abs=0.01)
    x = torch.tensor([[1.0, 4.0, 2.0]])
    y = torch.tensor([3.0])
    pairs = sum(abs(a - b) for a in (1, 4, 2) for b in (1, 4, 2)) / 6
    assert crps(x, y) == pytest.approx((2 + 1 + 1) / 3 - pairs / 2)
    assert crps(torch.full((1, 5), 2.0), y) == pytest.approx(1.0)


def test_impossible_counts_are_refused() -> None:
    student, _, values, known, _ = noisy(1)
    for count in (1, 0, 2.5, True):
        with pytest.raises(UserError, match=r"count="):
            drawn(student, values, known, count)
    with pytest.raises(UserError, match=r"task='sideways'"):
        student.posterior("sideways", values, 3)
