"""Transforms and dual norms against dense linear algebra, waves against trigonometric functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pidscale.ops.grid import Grid
from pidscale.ops.spectral import (
    dual_square_dirichlet,
    dual_square_dirichlet_line,
    dual_square_of_one,
    dual_square_periodic,
    dual_square_periodic_line,
    dual_square_zero_flux,
    field_of,
    resample,
    wave_numbers,
    waves,
)
from pidscale.ops.stencil import laplacian
from pidscale.ops.window import Window


def nodes(height: int, width: int, spacing: tuple[float, float]) -> Window:
    """Return the window of a grid with so many interior nodes."""
    return Window(Grid((height + 2, width + 2), ((height + 1) * spacing[0], (width + 1) * spacing[1])))


def dense_laplacian(height: int, width: int, spacing: tuple[float, float]) -> np.ndarray:
    """Return -lap_h of interior nodes with zero ends as a matrix."""

    def second(n: int, h: float) -> np.ndarray:
        return (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) / h**2

    return np.kron(second(height, spacing[0]), np.eye(width)) + np.kron(np.eye(height), second(width, spacing[1]))


def test_dual_norm_is_the_inverse_laplacian() -> None:
    height, width, spacing = 5, 7, (0.2, 0.11)
    residual = np.random.default_rng(0).normal(size=(3, height, width))
    inverse = np.linalg.inv(dense_laplacian(height, width, spacing))
    flat = residual.reshape(3, -1)
    expected = np.einsum("bi,ij,bj->b", flat, inverse, flat) / (height * width)
    got = dual_square_dirichlet(torch.from_numpy(residual), nodes(height, width, spacing))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("points", "spacing"), [(6, 0.3), (31, 1 / 32)])
def test_the_dual_norm_of_a_line_is_a_sum_over_its_modes(
    points: int, spacing: float, dtype: torch.dtype, tolerance: float
) -> None:
    """Against the eigenvectors of the second difference with zero ends, from linear algebra."""
    second = (2 * np.eye(points) - np.eye(points, k=1) - np.eye(points, k=-1)) / spacing**2
    mu, modes = np.linalg.eigh(second)
    field = torch.randn(3, points, dtype=dtype)
    expected = ((field.double().numpy() @ modes) ** 2 / mu).mean(axis=1)
    got = dual_square_dirichlet_line(field, spacing)
    assert got.dtype == dtype and got.shape == (3,)
    np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance)


def test_gradients_of_the_dual_norm_of_a_line_are_correct() -> None:
    field = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dual_square_dirichlet_line(x, 0.2), (field,))


def test_the_dual_norm_of_one_equals_that_of_a_field_of_ones() -> None:
    window = nodes(6, 9, (0.2, 0.1))
    ones = dual_square_dirichlet(torch.ones(1, 6, 9, dtype=torch.float64), window)
    np.testing.assert_allclose(dual_square_of_one(window.grid), float(ones), rtol=1e-12)


def test_the_dual_norm_weighs_short_waves_less() -> None:
    """Of two waves with equal amplitude the shorter has the smaller dual norm, by the ratio of their eigenvalues."""
    n = 31
    x = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    squares = [
        dual_square_dirichlet(
            (torch.sin(k * torch.pi * x)[:, None] * torch.sin(k * torch.pi * x))[None], nodes(31, 31, (1 / 32,) * 2)
        )
        for k in (1, 8)
    ]
    mu = [2 * (2 * 32 * np.sin(np.pi * k / 64)) ** 2 for k in (1, 8)]
    np.testing.assert_allclose(float(squares[0] / squares[1]), mu[1] / mu[0], rtol=1e-10)


PERIODIC = (dual_square_periodic, "circular", "periodic")
ZERO_FLUX = (dual_square_zero_flux, "replicate", "cell")


def grid_of(kind: str, shape: tuple[int, int], spacing: tuple[float, float]) -> Grid:
    boundary = {"periodic": "periodic", "cell": "zero_flux"}[kind]
    return Grid(shape, (shape[0] * spacing[0], shape[1] * spacing[1]), kind, boundary)


@pytest.mark.parametrize(
    ("dual", "pad", "kind", "shape"),
    [(*PERIODIC, (6, 8)), (*PERIODIC, (7, 9)), (*ZERO_FLUX, (6, 8)), (*ZERO_FLUX, (7, 9))],
)
def test_the_dual_norm_equals_that_of_the_assembled_operator(dual, pad, kind, shape) -> None:
    """R . (-lap_h)^+ R divided by the number of points, with the 5-point operator applied to every unit field."""
    spacing = (0.3, 0.5)
    n = shape[0] * shape[1]
    units = torch.eye(n, dtype=torch.float64).reshape(n, 1, *shape)
    padded = torch.nn.functional.pad(units, (1, 1, 1, 1), mode=pad)[:, 0]
    operator = -laplacian(padded, spacing).reshape(n, n)
    field = torch.randn(3, *shape, dtype=torch.float64)
    flat = field.flatten(1)
    expected = torch.einsum("bi,ij,bj->b", flat, torch.linalg.pinv(operator, rtol=1e-10), flat) / n
    torch.testing.assert_close(dual(field, Window(grid_of(kind, shape, spacing))), expected)


@pytest.mark.parametrize("points", [8, 9])
def test_the_dual_norm_of_a_periodic_line_equals_that_of_the_assembled_operator(points) -> None:
    spacing = 0.3
    units = torch.eye(points, dtype=torch.float64)
    operator = (2 * units - units.roll(1, 0) - units.roll(-1, 0)) / spacing**2
    field = torch.randn(3, points, dtype=torch.float64)
    expected = torch.einsum("bi,ij,bj->b", field, torch.linalg.pinv(operator, rtol=1e-10), field) / points
    torch.testing.assert_close(dual_square_periodic_line(field, spacing), expected)


@pytest.mark.parametrize(("dual", "kind"), [(dual_square_periodic, "periodic"), (dual_square_zero_flux, "cell")])
def test_the_dual_norm_ignores_the_mean_without_dirichlet_ends(dual, kind) -> None:
    field = torch.randn(2, 6, 9, dtype=torch.float64)
    spacing = (1 / 6, 1 / 9)
    window = Window(grid_of(kind, (6, 9), spacing))
    torch.testing.assert_close(dual(field + 7.0, window), dual(field, window))
    assert (dual_square_dirichlet(torch.ones(1, 6, 9), nodes(6, 9, spacing)) > 0).all()


@pytest.mark.parametrize("shape", [(8, 8), (9, 7), (8, 9)])
def test_resampled_waves_are_the_same_function(shape) -> None:
    """A trigonometric field is the same function on a finer grid and, from there, on its own."""

    def field(height: int, width: int) -> torch.Tensor:
        y, x = torch.arange(height).double()[:, None] / height, torch.arange(width).double()[None, :] / width
        return (2 * torch.pi * (3 * x - 2 * y)).cos() + (2 * torch.pi * 3 * y).sin() + 0.5

    def moved(one: tuple[int, int], other: tuple[int, int]) -> torch.Tensor:
        spectrum = resample(torch.fft.rfft2(field(*one), norm="forward"), one[0], other[0], -2, real=False)
        return torch.fft.irfft2(resample(spectrum, one[1], other[1], -1, real=True), s=other, norm="forward")

    fine = (15, 16)
    torch.testing.assert_close(moved(shape, fine), field(*fine))
    torch.testing.assert_close(moved(fine, shape), field(*shape))


@pytest.mark.parametrize("shape", [(8, 8), (9, 7)])
def test_waves_are_the_real_transform_and_field_of_inverts_it(shape) -> None:
    window = Window(grid_of("periodic", shape, (0.1, 0.1)))
    field = torch.randn(2, 3, *shape, dtype=torch.float64)
    spectrum = waves(window, field)
    torch.testing.assert_close(spectrum, torch.fft.rfft2(field, norm="forward"))
    torch.testing.assert_close(field_of(window, spectrum), field)


def test_wave_numbers_differentiate() -> None:
    y, x = torch.arange(8).double()[:, None] / 8, torch.arange(12).double()[None, :] / 6
    field = torch.sin(2 * torch.pi * y) * torch.cos(torch.pi * 2 * x)
    window = Window(Grid((8, 12), (1.0, 2.0), "periodic", "periodic"))
    ky, kx = wave_numbers(window, field)
    slopes = [field_of(window, 1j * k * waves(window, field)) for k in (ky, kx)]
    torch.testing.assert_close(slopes[0], 2 * torch.pi * torch.cos(2 * torch.pi * y) * torch.cos(2 * torch.pi * x))
    torch.testing.assert_close(slopes[1], -2 * torch.pi * torch.sin(2 * torch.pi * y) * torch.sin(2 * torch.pi * x))
