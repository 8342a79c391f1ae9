"""Sine transforms and the dual norm against dense linear algebra."""

from __future__ import annotations

import numpy as np
import torch

from pidscale.ops.spectral import dual_square_dirichlet, sine_transform


def dense_laplacian(height: int, width: int, spacing: tuple[float, float]) -> np.ndarray:
    """-lap_h of interior nodes with zero ends, as a matrix."""

    def second(n: int, h: float) -> np.ndarray:
        return (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) / h**2

    return np.kron(second(height, spacing[0]), np.eye(width)) + np.kron(np.eye(height), second(width, spacing[1]))


def test_dual_norm_is_the_inverse_laplacian() -> None:
    height, width, spacing = 5, 7, (0.2, 0.11)
    residual = np.random.default_rng(0).normal(size=(3, height, width))
    inverse = np.linalg.inv(dense_laplacian(height, width, spacing))
    flat = residual.reshape(3, -1)
    expected = np.einsum("bi,ij,bj->b", flat, inverse, flat) / (height * width)
    got = dual_square_dirichlet(torch.from_numpy(residual), spacing)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_the_sine_transform_is_orthonormal_and_its_own_inverse() -> None:
    field = torch.randn(2, 6, 9, dtype=torch.float64)
    there = sine_transform(field)
    torch.testing.assert_close(sine_transform(there), field)
    torch.testing.assert_close(there.square().sum(dim=(1, 2)), field.square().sum(dim=(1, 2)))
    assert (there - field).abs().max() > 0.1


def test_a_sine_wave_is_one_mode() -> None:
    y, x = torch.arange(1, 7, dtype=torch.float64)[:, None], torch.arange(1, 10, dtype=torch.float64)[None, :]
    wave = torch.sin(torch.pi * 2 * y / 7) * torch.sin(torch.pi * 5 * x / 10)
    modes = sine_transform(wave[None])[0].abs()
    assert modes.argmax() == 1 * 9 + 4
    assert modes.flatten().sort().values[-2] < 1e-12


def test_the_dual_norm_weighs_fine_grain_less() -> None:
    """Of two waves of one amplitude the finer has the smaller dual norm, by the ratio of their eigenvalues."""
    n = 31
    x = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    squares = [
        dual_square_dirichlet((torch.sin(k * torch.pi * x)[:, None] * torch.sin(k * torch.pi * x))[None], (1 / 32,) * 2)
        for k in (1, 8)
    ]
    mu = [2 * (2 * 32 * np.sin(np.pi * k / 64)) ** 2 for k in (1, 8)]
    np.testing.assert_allclose(float(squares[0] / squares[1]), mu[1] / mu[0], rtol=1e-10)
