"""Transforms and dual norms against dense linear algebra, waves against functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pidscale.ops.spectral import (
    dual_square_dirichlet,
    dual_square_dirichlet_line,
    dual_square_periodic,
    dual_square_zero_flux,
    resample,
    sine_transform,
    wave_numbers,
)
from pidscale.ops.stencil import laplacian


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("points", "spacing"), [(6, 0.3), (31, 1 / 32)])
def test_the_dual_norm_of_a_line_is_a_sum_over_its_modes(
    points: int, spacing: float, dtype: torch.dtype, tolerance: float
) -> None:
    """Eigenvectors of the second difference with zero ends, as linear algebra finds them."""
    second = (2 * np.eye(points) - np.eye(points, k=1) - np.eye(points, k=-1)) / spacing**2
    mu, modes = np.linalg.eigh(second)
    field = torch.randn(3, points, dtype=dtype)
    expected = ((field.double().numpy() @ modes) ** 2 / mu).mean(axis=1)
    got = dual_square_dirichlet_line(field, spacing)
    assert got.dtype == dtype and got.shape == (3,)
    np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance)


def test_the_dual_norm_of_a_line_has_right_gradients() -> None:
    field = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dual_square_dirichlet_line(x, 0.2), (field,))


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


PERIODIC, ZERO_FLUX = (dual_square_periodic, "circular"), (dual_square_zero_flux, "replicate")


@pytest.mark.parametrize(
    ("dual", "pad", "shape"),
    [(*PERIODIC, (6, 8)), (*PERIODIC, (7, 9)), (*PERIODIC, (1, 8)), (*ZERO_FLUX, (6, 8)), (*ZERO_FLUX, (7, 9))],
)
def test_the_dual_norm_is_that_of_the_assembled_operator(dual, pad, shape) -> None:
    """R . (-lap_h)^+ R over the number of points, with the 5-point operator applied to every unit field."""
    spacing, n = (0.3, 0.5), shape[0] * shape[1]
    units = torch.eye(n, dtype=torch.float64).reshape(n, 1, *shape)
    padded = torch.nn.functional.pad(units, (1, 1, 1, 1), mode=pad)[:, 0]
    operator = -laplacian(padded, spacing).reshape(n, n)
    field = torch.randn(3, *shape, dtype=torch.float64)
    flat = field.flatten(1)
    expected = torch.einsum("bi,ij,bj->b", flat, torch.linalg.pinv(operator, rtol=1e-10), flat) / n
    torch.testing.assert_close(dual(field, spacing), expected)


@pytest.mark.parametrize("dual", [dual_square_periodic, dual_square_zero_flux])
def test_a_mean_has_no_dual_norm_where_nothing_holds_it(dual) -> None:
    field, spacing = torch.randn(2, 6, 9, dtype=torch.float64), (1 / 6, 1 / 9)
    torch.testing.assert_close(dual(field + 7.0, spacing), dual(field, spacing))
    assert (dual_square_dirichlet(torch.ones(1, 6, 9), spacing) > 0).all()


@pytest.mark.parametrize("shape", [(8, 8), (9, 7), (8, 9)])
def test_waves_move_between_grids(shape) -> None:
    """A trigonometric field is the same function on a finer grid, and comes back."""

    def field(height: int, width: int) -> torch.Tensor:
        y, x = torch.arange(height).double()[:, None] / height, torch.arange(width).double()[None, :] / width
        return (2 * torch.pi * (3 * x - 2 * y)).cos() + (2 * torch.pi * 3 * y).sin() + 0.5

    fine = (15, 16)
    there = resample(torch.fft.rfft2(field(*shape), norm="forward"), shape, fine)
    torch.testing.assert_close(torch.fft.irfft2(there, s=fine, norm="forward"), field(*fine))
    back = resample(torch.fft.rfft2(field(*fine), norm="forward"), fine, shape)
    torch.testing.assert_close(torch.fft.irfft2(back, s=shape, norm="forward"), field(*shape))


def test_wave_numbers_differentiate() -> None:
    y, x = torch.arange(8).double()[:, None] / 8, torch.arange(12).double()[None, :] / 6
    field = torch.sin(2 * torch.pi * y) * torch.cos(torch.pi * 2 * x)
    ky, kx = wave_numbers((8, 12), (1.0, 2.0), field)
    spectrum = torch.fft.rfft2(field)
    slopes = [torch.fft.irfft2(1j * k * spectrum, s=(8, 12)) for k in (ky, kx)]
    torch.testing.assert_close(slopes[0], 2 * torch.pi * torch.cos(2 * torch.pi * y) * torch.cos(2 * torch.pi * x))
    torch.testing.assert_close(slopes[1], -2 * torch.pi * torch.sin(2 * torch.pi * y) * torch.sin(2 * torch.pi * x))
