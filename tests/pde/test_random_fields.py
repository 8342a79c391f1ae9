"""Gaussian fields: the same field at every resolution, with the documented covariance."""

from __future__ import annotations

import numpy as np

from pidscale.pde.random_fields import MODES, cosine_field


def test_grids_that_hold_all_modes_agree_at_common_nodes() -> None:
    coarse = cosine_field(1, "s", 5, (65, 65))
    fine = cosine_field(1, "s", 5, (129, 65))
    np.testing.assert_allclose(fine[::2], coarse, atol=1e-12)
    assert MODES == 64 and coarse.std() > 0.01


def test_a_coarse_grid_keeps_the_low_modes_of_the_same_draw() -> None:
    for counter in range(5):
        coarse, fine = cosine_field(1, "s", counter, (33, 33)), cosine_field(1, "s", counter, (65, 65))
        assert np.corrcoef(coarse.ravel(), fine[::2, ::2].ravel())[0, 1] > 0.99
        other = cosine_field(1, "s", counter + 1, (33, 33))
        assert abs(np.corrcoef(coarse.ravel(), other.ravel())[0, 1]) < 0.95


def test_the_covariance_is_as_documented() -> None:
    """Var at a node = sum over modes of tau^(2 alpha - 2) (pi^2 |k|^2 + tau^2)^-alpha times the squared cosines there."""
    alpha, tau, n = 2.5, 4.0, 9
    drawn = np.stack([cosine_field(0, "law", i, (n, n), alpha, tau) for i in range(500)])
    for row, column in ((0, 0), (4, 4), (0, 4), (2, 7)):
        expected = 0.0
        for ky in range(n):
            for kx in range(n):
                if ky or kx:
                    weight = (2 if ky else 1) * (2 if kx else 1)
                    cosines = np.cos(np.pi * ky * row / (n - 1)) * np.cos(np.pi * kx * column / (n - 1))
                    power = tau ** (2 * alpha - 2) * (np.pi**2 * (ky**2 + kx**2) + tau**2) ** -alpha
                    expected += weight * power * cosines**2
        assert 0.8 < np.mean(drawn[:, row, column] ** 2) / expected < 1.25, (row, column)
        assert abs(drawn[:, row, column].mean()) < 4 * (expected / 500) ** 0.5


def test_the_mean_is_zero() -> None:
    """The trapezoidal mean over nodes, which integrates the cosines exactly, is zero for every draw."""
    field = cosine_field(0, "law", 3, (65, 65))
    weights = np.ones(65)
    weights[[0, -1]] = 0.5
    assert abs(weights @ field @ weights) < 1e-9 < np.abs(field).max()
