"""Gaussian modes: their flow solves the ODE, and their posterior is that of the normal equations."""

from __future__ import annotations

import pytest
import torch

from pidscale.config import NOISES
from pidscale.diffusion.closed_form import GaussianModes
from pidscale.diffusion.noise import KINDS
from pidscale.diffusion.solvers import integrate

MODES = GaussianModes(torch.tensor([0.05, 0.5, 2.0, 8.0], dtype=torch.float64).reshape(1, 1, 1, 4))


@pytest.mark.parametrize("kind", NOISES)
def test_solvers_near_the_flow(kind: str) -> None:
    noise = KINDS[kind]()
    eps = torch.randn(3, 1, 1, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    exact = noise.sigma_max * MODES.flow(noise.sigma_max, 0.0) * eps
    found = integrate(MODES.denoise, eps, noise.levels(800), "heun")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact, rtol=2e-3, atol=0)


def test_flows_compose() -> None:
    torch.testing.assert_close(MODES.flow(80.0, 3.0) * MODES.flow(3.0, 0.1), MODES.flow(80.0, 0.1))
    assert torch.equal(MODES.flow(3.0, 3.0), torch.ones_like(MODES.std))


def test_the_flow_is_the_integral_of_the_denoiser() -> None:
    """d flow / d sigma = (x - D(x, sigma)) / sigma, at every level."""
    for level in (0.01, 0.7, 20.0):
        step = 1e-6 * level
        x = MODES.flow(80.0, level)
        slope = (MODES.flow(80.0, level + step) - MODES.flow(80.0, level - step)) / (2 * step)
        torch.testing.assert_close(
            slope, (x - MODES.denoise(x, torch.tensor([level]).double())) / level, rtol=1e-6, atol=1e-9
        )


def test_the_posterior_is_that_of_the_normal_equations() -> None:
    values = torch.randn(1, 1, 1, 4, dtype=torch.float64, generator=torch.manual_seed(1))
    sigma = torch.tensor([0.1, 1.0, 3.0, torch.inf], dtype=torch.float64).reshape(1, 1, 1, 4)
    mean, std = MODES.posterior(values, sigma)
    covariance = torch.diag(MODES.std.flatten() ** 2)
    rows = torch.eye(4, dtype=torch.float64)[:3]  # the last value is not known
    noise = torch.diag(sigma.flatten()[:3] ** 2)
    gain = covariance @ rows.T @ torch.linalg.inv(rows @ covariance @ rows.T + noise)
    torch.testing.assert_close(mean.flatten(), gain @ values.flatten()[:3])
    torch.testing.assert_close(std.flatten() ** 2, (covariance - gain @ rows @ covariance).diagonal())
    assert mean.flatten()[3] == 0 and std.flatten()[3] == 8.0


def test_the_denoiser_is_the_mean_of_the_posterior() -> None:
    x = torch.randn(2, 1, 1, 4, dtype=torch.float64, generator=torch.manual_seed(2))
    level = torch.tensor([0.3, 5.0])
    mean, _ = MODES.posterior(x, level.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(MODES.denoise(x, level), mean)
