"""Kinds of noise: their kernels, the exact flow of Gaussian data under each, and what a network predicts."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from pidscale.config import NOISES
from pidscale.diffusion.noise import (
    KINDS,
    EdmNoise,
    FlowNoise,
    Noise,
    SubVpNoise,
    VpNoise,
    kept,
    noise_from,
    schedule_for,
)
from pidscale.diffusion.objective import denoising_errors
from pidscale.diffusion.solvers import integrate, one_step
from pidscale.models.precondition import PreconditionedNetwork

SPREAD = 0.5


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of data N(0, SPREAD^2) with independent points."""
    s = sigma.double().reshape(-1, 1, 1, 1)
    return SPREAD**2 / (SPREAD**2 + s**2) * x


@pytest.fixture(params=NOISES)
def noise(request: pytest.FixtureRequest) -> Noise:
    return KINDS[request.param]()


def test_the_settings_name_every_kind() -> None:
    assert set(NOISES) == set(KINDS)


def test_a_description_restores_the_schedule(noise: Noise) -> None:
    assert noise_from(noise.describe()) == noise
    old = {key: value for key, value in EdmNoise(p_mean=0.3).describe().items() if key != "kind"}
    assert noise_from(old) == EdmNoise(p_mean=0.3)  # as in cards that were written before there were several kinds


def test_vp_kernels_are_those_of_the_paper() -> None:
    """Song et al. 2021, eq. 29 and 32, with beta from 0.1 to 20."""
    t = torch.tensor([0.01, 0.2, 0.7, 1.0], dtype=torch.float64)
    log_alpha = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    variance = 1 - (2 * log_alpha).exp()
    top = math.sqrt(math.expm1(0.5 * 19.9 + 0.1))
    torch.testing.assert_close(VpNoise(sigma_max=top).sigma(t), variance.sqrt() / log_alpha.exp())
    top = 2 * math.sinh((0.5 * 19.9 + 0.1) / 2)
    torch.testing.assert_close(SubVpNoise(sigma_max=top).sigma(t), variance / log_alpha.exp())
    assert VpNoise.least_max == pytest.approx(math.sqrt(math.expm1(10.05)), rel=1e-3)


def test_time_and_level_are_inverse_functions(noise: Noise) -> None:
    if isinstance(noise, EdmNoise):
        return
    for sigma in (noise.sigma_min, 0.3, 5.0, noise.sigma_max):
        assert float(noise.sigma(torch.tensor(noise.time(sigma), dtype=torch.float64))) == pytest.approx(
            sigma, rel=1e-9
        )
    steps = torch.tensor([noise.time(float(level)) for level in noise.levels(9)[:-1]]).diff()
    assert float(steps.max() - steps.min()) < 1e-6 and float(steps[0]) < 0


def test_solver_and_training_levels_stay_within_bounds(noise: Noise) -> None:
    levels = noise.levels(12)
    assert levels.shape == (13,) and levels[-1] == 0 and (levels.diff() < 0).all()
    assert float(levels[0]) == pytest.approx(noise.sigma_max) and float(levels[-2]) == pytest.approx(noise.sigma_min)
    drawn = noise.training_level(torch.linspace(-3, 3, 9))
    assert (drawn.diff() > 0).all() and bool(torch.isfinite(drawn).all()) and drawn.dtype == torch.float32
    if not isinstance(noise, EdmNoise):
        assert noise.sigma_min * 0.99 <= float(drawn.min()) and float(drawn.max()) <= noise.sigma_max
        middle = float(noise.training_level(torch.zeros(1)))
        assert noise.time(middle) == pytest.approx(
            (noise.time(noise.sigma_min) + noise.time(noise.sigma_max)) / 2, rel=1e-4
        )


def test_every_kind_follows_the_exact_flow_of_gaussian_data(noise: Noise) -> None:
    """x scales with sqrt(SPREAD^2 + sigma^2) for every kind, and Euler's error falls at order 1."""
    eps = torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    found = {steps: integrate(gaussian, eps, noise.levels(steps), "euler") for steps in (400, 800)}
    exact = noise.sigma_max * eps * SPREAD / math.hypot(SPREAD, noise.sigma_max)
    errors = {steps: float((x - exact).abs().max()) for steps, x in found.items()}
    assert errors[400] < 0.02 and 1.7 < errors[400] / errors[800] < 2.3, errors
    torch.testing.assert_close(integrate(gaussian, eps, noise.levels(4000), "heun"), SPREAD * eps, atol=1e-3, rtol=0)


def test_euler_steps_in_time_and_in_sigma_agree_on_straight_paths() -> None:
    """A step of x_t along the velocity is the step of x in sigma."""
    noise = FlowNoise()
    eps = torch.linspace(-2, 2, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    levels = noise.levels(7)
    t = levels / (1 + levels)
    x_t = t[0] * eps
    for here, there in itertools.pairwise(t):
        x0 = gaussian(x_t / (1 - here), (here / (1 - here)).reshape(1))
        x_t = x_t + (there - here) * (x_t - x0) / here
    torch.testing.assert_close(x_t, integrate(gaussian, eps, levels, "euler"))


class _Recorder(nn.Module):
    """A raw network that records its inputs and returns a constant."""

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor | None = None) -> Tensor:
        self.seen = (x, c_noise)
        return torch.full_like(x, 0.25)


def test_a_flow_network_predicts_the_velocity() -> None:
    """It sees x_t = (1 - t) x0 + t eps; with F = eps - x0 the denoised field is x0, and eps - F at the highest level."""
    network = _Recorder()
    x0 = torch.full((1, 1, 4, 4), 0.3)
    eps = torch.full((1, 1, 4, 4), 0.55)
    denoiser = PreconditionedNetwork(network, prediction="velocity")
    sigma = torch.tensor([1.5])
    found = denoiser(x0 + 1.5 * eps, sigma)
    torch.testing.assert_close(network.seen[0], 0.4 * x0 + 0.6 * eps)
    torch.testing.assert_close(found, x0)
    torch.testing.assert_close(one_step(denoiser, eps, 1e5), eps - 0.25, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", NOISES)
def test_the_weight_makes_errors_of_the_network_equal_at_every_level(kind: str) -> None:
    """The loss of an error in F does not depend on the level or on the kind."""
    noise = KINDS[kind]()
    sigma = torch.tensor([0.01, 0.5, 7.0, 100.0])
    denoiser = PreconditionedNetwork(_Recorder(), prediction="velocity" if kind == "flow" else "edm")
    x = torch.zeros(4, 1, 4, 4)
    eps = torch.zeros(4, 1, 4, 4)
    torch.testing.assert_close(denoising_errors(denoiser, noise, x, sigma, eps), torch.full((4,), 0.25**2))


def test_a_network_may_be_conditioned_on_another_level_than_that_of_its_input() -> None:
    network = _Recorder()
    denoiser = PreconditionedNetwork(network)
    x = torch.ones(2, 1, 4, 4)
    plain = denoiser(x, torch.tensor([80.0, 80.0]))
    other = denoiser(x, torch.tensor([80.0, 80.0]), None, torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(network.seen[1], torch.tensor([0.5, 3.0]).log() / 4)
    torch.testing.assert_close(other, plain)  # the recorder ignores its condition; c_skip and c_out must not change


@pytest.mark.parametrize("kind", NOISES)
def test_the_highest_level_keeps_the_strongest_mode(kind: str) -> None:
    """The mode's standard deviation is 8 at 32 points a side and grows with their number, here up to 1024."""
    for points in (32, 64, 128, 256, 512, 1024):
        strongest = 8.0 * points / 32
        noise = schedule_for(kind, strongest, points)
        assert noise.kind == kind and kept(noise.sigma_max, strongest) >= 0.99
    with pytest.raises(ValueError, match=r"teacher\.sigma_max=100"):
        schedule_for(kind, 64.0, 128, sigma_max=100.0)
