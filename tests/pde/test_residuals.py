"""Statistics of the residuals of a set: root mean squares, residuals of stored samples, and floors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pidscale.ops.window import Window
from pidscale.pde import build_pde
from pidscale.pde.base import truths
from pidscale.pde.residuals import floor_of, residual_rms, residual_squares, truth_residuals


def test_residual_rms_covers_all_samples_in_any_chunks() -> None:
    pde = build_pde("darcy")
    grid = pde.grid(16)
    truth = truths(pde, 0, range(4), grid).fields
    half = torch.cat([truth[:2], pde.trivial(truth)[2:]])  # residuals 0, 0, 1, 1
    whole = residual_rms(pde, grid, half)
    assert whole["l2"] == pytest.approx(math.sqrt(0.5)) and whole["dual"] == pytest.approx(math.sqrt(0.5))
    assert residual_rms(pde, grid, half, chunk=3) == pytest.approx(whole)


def test_the_floor_of_stored_samples_is_the_mean_and_the_largest_of_their_residuals() -> None:
    pde = build_pde("heat", {"frames": 4})
    grid = pde.grid(16)
    fields, params = truths(pde, 0, range(5), grid)
    stored = fields.float()
    residuals = truth_residuals(pde, grid, stored.numpy(), params.numpy())
    squares = residual_squares(pde, grid, stored, params)
    for norm, values in residuals.items():
        np.testing.assert_array_equal(values, np.sqrt(squares[norm].double().numpy()))
    floor = floor_of(residuals)
    assert set(floor) == {"l2", "dual", "boundary", "max_l2", "max_dual", "max_boundary"}
    assert floor["l2"] == pytest.approx(residual_rms(pde, grid, stored, params)["l2"])
    assert floor["max_l2"] == residuals["l2"].max() > floor["l2"]


def test_the_first_residual_of_an_equation_may_lie_inside_a_transform_of_torch_func() -> None:
    """Tables that outlive the call hold no tensors of the transform."""
    pde = build_pde("burgers", {"size": 0.37})  # whose tables no other test has made
    window = Window(pde.grid(8))
    fields = torch.rand(1, 1, *window.grid.shape, dtype=torch.float64)

    def values(u: torch.Tensor) -> torch.Tensor:
        return pde.residual(window, u, torch.zeros(1, 0))["interior"].values

    found, ahead = torch.func.jvp(values, (fields,), (torch.ones_like(fields),))
    assert torch.equal(found, values(fields)) and ahead.isfinite().all()
    torch.testing.assert_close(ahead, (values(fields + 1e-6) - values(fields - 1e-6)) / 2e-6, rtol=1e-6, atol=1e-6)
