"""Finite differences against calculus: second order on a manufactured solution, on a grid with two spacings."""

from __future__ import annotations

import numpy as np
import torch

from pidscale.ops.stencil import flux_divergence, laplacian
from pidscale.pde.solve.elliptic import solve_diffusion

HEIGHT = 1.5  # length in y; u vanishes at y = 0 and 1.5, and at x = 0 and 1
SIZES = (17, 33, 65, 129)


def manufactured(n: int) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """Return smooth a, u, f = -div(a grad u) and lap u, derived by hand, on n x (2 n - 1) nodes, and the spacing."""
    y, x = np.linspace(0, HEIGHT, n)[:, None], np.linspace(0, 1, 2 * n - 1)[None, :]
    a, a_x, a_y = 1 + x + y**2, 1.0, 2 * y
    s = np.exp(x) * np.sin(np.pi * x)
    s_x = np.exp(x) * (np.sin(np.pi * x) + np.pi * np.cos(np.pi * x))
    s_xx = np.exp(x) * ((1 - np.pi**2) * np.sin(np.pi * x) + 2 * np.pi * np.cos(np.pi * x))
    t, t_y, t_yy = (
        np.sin(2 * np.pi * y),
        2 * np.pi * np.cos(2 * np.pi * y),
        -4 * np.pi**2 * np.sin(2 * np.pi * y),
    )
    lap = s_xx * t + s * t_yy
    f = -(a_x * s_x * t + a_y * s * t_y + a * lap)
    return {"a": a, "u": s * t, "f": f, "lap": lap}, (HEIGHT / (n - 1), 1 / (2 * n - 2))


def orders(errors: list[float]) -> np.ndarray:
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def test_flux_divergence_is_second_order() -> None:
    errors = []
    for n in SIZES:
        exact, spacing = manufactured(n)
        a, u, f = (torch.from_numpy(exact[k])[None] for k in ("a", "u", "f"))
        residual = flux_divergence(a, u, spacing)[0] + f[0, 1:-1, 1:-1]
        errors.append(float(residual.square().mean().sqrt() / f.square().mean().sqrt()))
    assert np.abs(orders(errors) - 2).max() < 0.3, errors
    assert errors[0] < 0.1


def test_laplacian_is_second_order_and_equals_the_flux_form_of_coefficient_one() -> None:
    errors = []
    for n in SIZES:
        exact, spacing = manufactured(n)
        u = torch.from_numpy(exact["u"])[None]
        lap = torch.from_numpy(exact["lap"])[None]
        errors.append(float((laplacian(u, spacing) - lap[:, 1:-1, 1:-1]).abs().max() / lap.abs().max()))
        torch.testing.assert_close(flux_divergence(torch.ones_like(u), u, spacing), laplacian(u, spacing))
    assert np.abs(orders(errors) - 2).max() < 0.3, errors


def test_the_solver_is_second_order_on_its_own() -> None:
    """The solver shares no operator with the stencils, so that each has to be correct by itself."""
    errors = []
    for n in SIZES[:3]:
        exact, _ = manufactured(n)
        solved = solve_diffusion(exact["a"], exact["f"], (HEIGHT, 1.0))
        errors.append(float(np.abs(solved - exact["u"]).max()))
    assert np.abs(orders(errors) - 2).max() < 0.3, errors
    assert errors[0] < 0.1


def test_a_face_has_the_mean_coefficient_of_its_two_points() -> None:
    """Where a jumps from 1 to 3 between columns, u with the same flux through every face has no residual."""
    a = torch.tensor([1.0, 1.0, 3.0, 3.0]).expand(1, 3, 4)
    u = torch.tensor([0.0, 1.0, 1.5, 1.5 + 1 / 3]).expand(1, 3, 4)  # slopes 1, 1/2, 1/3 through faces 1, 2, 3
    torch.testing.assert_close(flux_divergence(a, u, (1.0, 0.5)), torch.zeros(1, 1, 2))
    torch.testing.assert_close(flux_divergence(a, 2 * u + 7, (1.0, 0.5)), torch.zeros(1, 1, 2), atol=1e-5, rtol=0)
    bent = u + torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(flux_divergence(a, bent, (1.0, 0.5)), torch.tensor([[[0.0, 12.0]]]))
