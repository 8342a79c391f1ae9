"""Noise levels, solvers and the denoising loss against closed forms, which Gaussian data have for all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pidscale import config
from pidscale.diffusion.noise import EdmNoise, schedule_for, strongest_mode
from pidscale.diffusion.normaliser import Normaliser
from pidscale.diffusion.objective import denoising_errors
from pidscale.diffusion.solvers import SOLVERS, integrate, one_step

SPREAD = 0.5  # standard deviation of the Gaussian data, all points independent


class Gaussian:
    """The exact denoiser of data N(mean, SPREAD^2); it counts its calls."""

    def __init__(self, mean: float = 0.0) -> None:
        self.mean = mean
        self.calls = 0
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (x.shape[0],)
        self.calls += 1
        self.levels.append(float(sigma[0]))
        s = sigma.reshape(-1, 1, 1, 1)
        return self.mean + SPREAD**2 / (SPREAD**2 + s**2) * (x - self.mean)


def exact(eps: Tensor, top: float, mean: float = 0.0) -> Tensor:
    """The end of the flow from top * eps for Gaussian data: x - mean scales with sqrt(SPREAD^2 + sigma^2)."""
    return mean + (top * eps - mean) * SPREAD / math.sqrt(SPREAD**2 + top**2)


def errors(solver: str, steps: list[int]) -> np.ndarray:
    eps = torch.linspace(-2, 2, 16).reshape(1, 1, 4, 4)
    noise = EdmNoise(sigma_max=5.0)
    found = [integrate(Gaussian(0.3), eps, noise.levels(k), solver) for k in steps]
    return np.array([float((x - exact(eps, 5.0, 0.3)).abs().max()) for x in found])


def test_each_solver_converges_at_its_order() -> None:
    steps = [8, 16, 32, 64]
    euler, heun, multistep = (errors(solver, steps) for solver in ("euler", "heun", "dpm2m"))
    assert np.abs(np.log2(euler[:-1] / euler[1:])[1:] - 1).max() < 0.25, euler
    assert np.abs(np.log2(heun[:-1] / heun[1:])[1:] - 2).max() < 0.35, heun
    assert np.abs(np.log2(multistep[:-1] / multistep[1:])[1:] - 2).max() < 0.35, multistep
    assert heun[-1] < euler[-1] / 10 and multistep[-1] < euler[-1] / 10


def test_the_settings_name_every_solver() -> None:
    assert tuple(SOLVERS) == config.SOLVERS


@pytest.mark.parametrize(("solver", "nfe"), [("heun", 13), ("euler", 7), ("dpm2m", 7)])
def test_a_solver_states_the_calls_that_it_makes(solver: str, nfe: int) -> None:
    denoiser = Gaussian()
    visited: list[Tensor] = []
    levels = EdmNoise().levels(7)
    out = integrate(denoiser, torch.ones(2, 1, 4, 4), levels, solver, visited)
    assert denoiser.calls == nfe == SOLVERS[solver].calls(7)
    assert len(visited) == 8 and visited[-1] is out and torch.all(visited[0] == 80.0)
    assert min(denoiser.levels) == pytest.approx(0.002) and denoiser.levels[0] == pytest.approx(80)


def test_one_step_is_one_call_at_the_highest_level() -> None:
    denoiser = Gaussian()
    eps = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    out = one_step(denoiser, eps, 80.0)
    assert denoiser.calls == 1 and denoiser.levels == [80.0]
    torch.testing.assert_close(out, SPREAD**2 / (SPREAD**2 + 6400) * 80 * eps)
    torch.testing.assert_close(out, integrate(Gaussian(), eps, EdmNoise().levels(1), "heun"), atol=1e-4, rtol=0)


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(ValueError, match="solver='rk4': expected one of euler, heun, dpm2m"):
        integrate(Gaussian(), torch.ones(1, 1, 4, 4), EdmNoise().levels(3), "rk4")


def test_edm_levels_are_those_of_the_paper() -> None:
    """Karras et al. 2022, eq. 5, with rho = 7: the first, the last and one level computed by hand."""
    levels = EdmNoise().levels(5)
    assert levels.dtype == torch.float64 and levels.shape == (6,)
    assert levels[0].item() == pytest.approx(80) and levels[4].item() == pytest.approx(0.002) and levels[5] == 0
    assert levels[2].item() == pytest.approx(((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7)
    assert (levels.diff() < 0).all()


def test_edm_training_levels_are_log_normal() -> None:
    noise = EdmNoise(p_mean=-0.7, p_std=1.5)
    normal = torch.tensor([-1.0, 0.0, 2.0])
    torch.testing.assert_close(noise.training_level(normal).log(), torch.tensor([-2.2, -0.7, 2.3]))


def test_the_highest_level_grows_with_the_strongest_mode() -> None:
    assert schedule_for("edm", 2.0, 32).sigma_max == 80 and schedule_for("edm", 2.0, 32).p_mean == pytest.approx(-0.8)
    assert schedule_for("edm", 20.0, 128).sigma_max == 200 and schedule_for("edm", 20.0, 128).p_mean == pytest.approx(
        -0.8 + math.log(4)
    )
    assert schedule_for("edm", 2.0, 32, sigma_max=30.0, p_mean=-0.4) == EdmNoise(sigma_max=30.0, p_mean=-0.4, p_std=1.6)


@pytest.mark.parametrize("chosen", [7.0, 0.0, -80.0, float("nan")])
def test_a_highest_level_that_loses_the_strongest_mode_is_refused(chosen: float) -> None:
    """sigma / sqrt(sigma^2 + s1^2) >= 0.99 requires sigma >= 7.02 s1."""
    assert schedule_for("edm", 1.0, 32, sigma_max=7.05).sigma_max == 7.05
    with pytest.raises(ValueError, match=r"teacher\.sigma_max=.*99%.* 10 or more"):
        schedule_for("edm", 1.0, 32, sigma_max=chosen)


def test_the_strongest_mode_is_the_first_singular_vector() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([3.0, 2.0] + [0.5] * 30)
    fields = rng.normal(size=(200, 32)) * scales @ np.linalg.qr(rng.normal(size=(32, 32)))[0] + 5.0
    first = np.linalg.svd(fields - fields.mean(axis=0), compute_uv=False)[0] / math.sqrt(200)
    assert strongest_mode(torch.from_numpy(fields).reshape(200, 2, 4, 4)) == pytest.approx(first, rel=1e-6)


def test_the_denoising_loss_is_the_weighted_squared_error() -> None:
    noise = EdmNoise(sigma_data=0.5)
    x = torch.tensor([[[[1.0, -1.0]]], [[[0.5, 2.0]]]])
    eps = torch.tensor([[[[1.0, 2.0]]], [[[-1.0, 0.0]]]])
    sigma = torch.tensor([0.5, 2.0])
    asked = []

    def denoiser(noisy: Tensor, level: Tensor) -> Tensor:
        asked.append((noisy, level))
        return noisy

    # the identity leaves the error sigma * eps; the weights are (0.25 + 0.25) / 0.0625 = 8 and (4 + 0.25) / 1 = 4.25
    got = denoising_errors(denoiser, noise, x, sigma, eps)
    torch.testing.assert_close(got, torch.tensor([8 * 0.25 * 2.5, 4.25 * 4 * 0.5]))
    torch.testing.assert_close(asked[0][0][0], torch.tensor([[[1.5, 0.0]]]))
    assert torch.equal(asked[0][1], sigma)


def test_the_exact_denoiser_has_a_loss_of_one() -> None:
    """For Gaussian data the weighted loss of the exact denoiser is 1 at every level."""
    generator = torch.Generator().manual_seed(0)
    x = SPREAD * torch.randn(64, 1, 32, 32, generator=generator)
    eps = torch.randn(64, 1, 32, 32, generator=generator)
    for level in (0.05, 0.5, 20.0):
        sigma = torch.full((64,), level)
        loss = float(denoising_errors(Gaussian(), EdmNoise(sigma_data=SPREAD), x, sigma, eps).mean())
        assert loss == pytest.approx(1.0, rel=0.02)


def test_decoding_inverts_encoding() -> None:
    normaliser = Normaliser((2.0, -1.0), (4.0, 0.01), sigma_data=0.5)
    physical = torch.stack([torch.tensor([[2.0, 6.0]]), torch.tensor([[-1.0, -0.98]])])[None]
    x = normaliser.encode(physical)
    torch.testing.assert_close(x, torch.tensor([[[[0.0, 0.5]], [[0.0, 1.0]]]]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normaliser.decode(x), physical)
    assert normaliser.decode(x.double()).dtype == torch.float64
    assert normaliser.decode(x.bfloat16()).dtype == torch.float32  # a residual of bf16 fields would be noise
