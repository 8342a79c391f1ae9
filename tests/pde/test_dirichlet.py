"""Poisson and Helmholtz: the sizes of their data, and their solver against an assembled matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from pidscale.config import UserError
from pidscale.pde import build_pde
from pidscale.pde.dirichlet import typical_dual_square
from pidscale.pde.random_fields import cosine_rms
from pidscale.pde.solve.sine import eigenvalues, solve_shifted_poisson


def matrix(n: int, length: float) -> sparse.csr_matrix:
    h = length / (n - 1)
    return sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(n - 2, n - 2)) / h**2


@pytest.mark.parametrize("shift", [0.0, 1.0, 150.0])
def test_the_sine_solver_solves_the_assembled_matrix(shift: float) -> None:
    height, width, extent = 17, 21, (1.0, 2.0)
    source = np.random.default_rng(0).standard_normal((height, width))
    eye_y, eye_x = sparse.identity(height - 2), sparse.identity(width - 2)
    laplacian = sparse.kron(matrix(height, 1.0), eye_x) + sparse.kron(eye_y, matrix(width, 2.0))
    expected = spsolve((laplacian + shift * sparse.identity(laplacian.shape[0])).tocsc(), source[1:-1, 1:-1].ravel())
    found = solve_shifted_poisson(source, shift, extent)
    np.testing.assert_allclose(found[1:-1, 1:-1].ravel(), expected, rtol=1e-9, atol=1e-12)
    assert found[[0, -1]].max() == found[:, [0, -1]].max() == 0


def test_the_solver_converges_at_second_order() -> None:
    errors = []
    for n in (17, 33, 65):
        y, x = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
        u = np.sin(np.pi * x) * np.sin(2 * np.pi * y)
        errors.append(np.abs(solve_shifted_poisson((3.0 - 5 * np.pi**2) * u, 3.0) - u).max())
    assert np.log2(errors[0] / errors[2]) / 2 == pytest.approx(2.0, abs=0.1)


def test_a_shift_that_is_an_eigenvalue_is_refused() -> None:
    with pytest.raises(ValueError, match="eigenvalue"):
        solve_shifted_poisson(np.ones((9, 9)), float(eigenvalues((9, 9))[2, 1]))


@pytest.mark.parametrize("name", ["poisson", "helmholtz"])
def test_scales_are_the_sizes_of_the_data(name: str) -> None:
    pde = build_pde(name)
    grid = pde.grid(48)
    fields = np.stack([pde.sample(5, i, grid)[0] for i in range(200)])
    assert np.sqrt(np.mean(fields[:, 0] ** 2)) == pytest.approx(1.0, rel=0.1)
    assert np.sqrt(np.mean(fields[:, 1] ** 2)) == pytest.approx(pde.solution_scale, rel=0.2)
    trivial = pde.trivial(torch.from_numpy(fields))
    assert trivial[:, 1].abs().max() == 0
    assert typical_dual_square(2.0, 3.0) > 0 and cosine_rms(2.0, 3.0) > 0


def test_helmholtz_with_wavenumber_zero_is_poisson() -> None:
    helmholtz = build_pde("helmholtz", {"wavenumber": 0.0})
    poisson = build_pde("poisson")
    fields = poisson.sample(0, 0, poisson.grid(24))[0]
    assert np.array_equal(helmholtz.solve(fields, helmholtz.grid(24))[0], fields)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("poisson", {"wavenumber": 1.0}, ["pde.params.wavenumber", "alpha"]),
        ("poisson", {"alpha": 1.0}, ["pde.params.alpha=1.0"]),
        ("poisson", {"tau": float("nan")}, ["pde.params.tau=nan"]),
        ("helmholtz", {"wavenumber": 10.0}, ["pde.params.wavenumber=10.0", "98.7", "eigenvalue"]),
        ("helmholtz", {"wavenumber": float("inf")}, ["pde.params.wavenumber=inf"]),
        ("helmholtz", {"wavenumber": -1.0}, ["pde.params.wavenumber=-1.0"]),
        ("helmholtz", {"wavenumber": "1"}, ["pde.params.wavenumber='1'", "float"]),
        ("helmholtz", {"alpha": float("inf")}, ["pde.params.alpha=inf"]),
    ],
)
def test_bad_parameters_are_refused_in_one_line(name: str, params: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        build_pde(name, params)
    text = str(raised.value)
    assert "\n" not in text and all(word in text for word in words), text
