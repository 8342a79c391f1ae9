"""Conjugate gradients: exact after as many steps as unknowns, and harmless where nothing is left to correct."""

from __future__ import annotations

import pytest
import torch

from pidscale.ops.krylov import conjugate_gradients

SIZE = 36


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [2 * SIZE, 10 * SIZE])
def test_steps_after_convergence_do_no_harm(dtype: torch.dtype, steps: int) -> None:
    drawn = torch.Generator().manual_seed(0)
    half = torch.randn(3, SIZE, SIZE, dtype=dtype, generator=drawn)
    matrix = half @ half.mT + SIZE * torch.eye(SIZE, dtype=dtype)
    right = torch.randn(3, SIZE, dtype=dtype, generator=drawn)

    def product(u: torch.Tensor) -> torch.Tensor:
        return (matrix @ u[..., None])[..., 0]

    found = conjugate_gradients(
        lambda u: right - product(u), product, lambda u: u, torch.zeros_like(right), steps, lambda share: share
    )
    wanted = torch.linalg.solve(matrix, right)
    assert (found - wanted).norm() < 20 * torch.finfo(dtype).eps * wanted.norm()
