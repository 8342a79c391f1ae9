"""Darcy flow: truths score far below null solutions, the residual is differentiable, and no sample changes its scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pidscale.config import UserError
from pidscale.metrics import solution_error
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde import build_pde
from pidscale.pde.base import Pde, solution_mask
from pidscale.pde.residuals import residual_squares

VARIANTS = ("two_phase", "log_normal")


def truths(variant: str, points: int, count: int = 8) -> tuple[Pde, Grid, torch.Tensor]:
    pde = build_pde("darcy", {"variant": variant})
    grid = pde.grid(points)
    return pde, grid, torch.from_numpy(np.stack([pde.sample(3, i, grid)[0] for i in range(count)]))


def norms(pde: Pde, grid: Grid, fields: torch.Tensor) -> dict[str, float]:
    return {name: float(v.mean().sqrt()) for name, v in residual_squares(pde, grid, fields).items()}


@pytest.mark.parametrize("points", [32, 64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_truths_score_far_below_null_and_shuffled_solutions(variant: str, points: int) -> None:
    pde, grid, fields = truths(variant, points)
    stored = fields.float()  # as shards hold it
    shuffled = torch.stack([stored[:, 0], stored[:, 1].roll(1, dims=0)], dim=1)
    truth, trivial, other = (norms(pde, grid, f) for f in (stored, pde.trivial(stored), shuffled))
    for norm in ("l2", "dual"):
        assert trivial[norm] == pytest.approx(1.0, abs=1e-5)
        assert truth[norm] <= 0.01 * min(trivial[norm], other[norm])
    assert truth["boundary"] == 0
    assert norms(pde, grid, fields)["l2"] < 1e-10  # in float64 solver and stencil agree to rounding


def test_the_boundary_term_measures_a_wrong_edge() -> None:
    pde, grid, fields = truths("two_phase", 32, 2)
    lifted = fields.clone()
    lifted[:, 1] += pde.pressure_scale
    squares = residual_squares(pde, grid, lifted)
    torch.testing.assert_close(squares["boundary"], torch.ones(2, dtype=torch.float64))
    assert squares["l2"].max() < 1e-10


def test_a_sample_changes_neither_the_scale_nor_other_samples() -> None:
    pde, grid, fields = truths("two_phase", 32, 2)
    window = Window(grid)
    terms = pde.residual(window, fields)
    others = pde.residual(window, 1e3 * fields + 5)
    assert {k: t.scale for k, t in terms.items()} == {k: t.scale for k, t in others.items()}
    batch = torch.cat([fields[:1], 50 * fields[1:]])
    together = residual_squares(pde, grid, batch)
    for name, values in residual_squares(pde, grid, batch[:1]).items():
        torch.testing.assert_close(together[name][:1], values)


def test_scales_follow_the_parameters() -> None:
    """With a and f ten times as large, u and every relative residual are the same."""
    plain = build_pde("darcy", {"variant": "two_phase"})
    large = build_pde("darcy", {"variant": "two_phase", "low": 30.0, "high": 120.0, "source": 10.0})
    grid = plain.grid(24)
    fields = torch.from_numpy(np.stack([plain.sample(1, i, grid)[0] for i in range(3)]))
    fields[:, 1] *= 1 + 0.1 * torch.randn(3, 24, 24, dtype=torch.float64)
    fields[:, 1] += 0.001
    scaled = torch.stack([10 * fields[:, 0], fields[:, 1]], dim=1)
    for name, values in residual_squares(plain, grid, fields).items():
        torch.testing.assert_close(residual_squares(large, grid, scaled)[name], values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_boundary_scale_is_the_size_of_the_pressure(variant: str) -> None:
    pde, _, fields = truths(variant, 48, 24)
    assert float(fields[:, 1].square().mean().sqrt()) == pytest.approx(pde.pressure_scale, rel=0.15)


def test_gradients_are_correct() -> None:
    pde = build_pde("darcy", {"variant": "log_normal"})
    grid = pde.grid(6)
    generator = torch.Generator().manual_seed(0)
    fields = torch.rand(2, 2, 6, 6, dtype=torch.float64, generator=generator).requires_grad_()

    def all_squares(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        squares = residual_squares(pde, grid, x)
        return squares["l2"], squares["dual"], squares["boundary"]

    assert torch.autograd.gradcheck(all_squares, (fields,))
    for square in all_squares(fields):
        assert torch.autograd.grad(square.sum(), fields, retain_graph=True)[0].abs().max() > 0


def test_autocast_does_not_change_the_residual_and_half_precision_is_refused() -> None:
    pde, grid, fields = truths("two_phase", 32, 2)
    noisy = (fields * 1.01).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = residual_squares(pde, grid, noisy)
    for name, values in residual_squares(pde, grid, noisy).items():
        assert torch.equal(inside[name], values) and values.dtype == torch.float32
    with pytest.raises(UserError, match=r"float32 or float64 tensor, not torch\.bfloat16"):
        residual_squares(pde, grid, noisy.bfloat16())


def test_smoothing_lowers_the_l2_residual_but_not_the_solution_error() -> None:
    pde, grid, fields = truths("two_phase", 32)
    wrong = fields.clone()
    noise = torch.randn(8, 30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wrong[:, 1, 1:-1, 1:-1] = 1.3 * wrong[:, 1, 1:-1, 1:-1] + 0.03 * pde.pressure_scale * noise
    smooth = pde.smooth(wrong, 3, grid)
    before, after = (norms(pde, grid, f) for f in (wrong, smooth))
    error = [solution_error(f[:, 1:], fields[:, 1:]) for f in (wrong, smooth)]
    assert after["l2"] < before["l2"] / 3
    assert error[1] > 0.9 * error[0] > 0.25
    assert torch.equal(smooth[:, 0], wrong[:, 0]) and norms(pde, grid, smooth)["boundary"] == 0
    assert float((pde.smooth(fields, 3, grid) - fields).abs().max()) < 1e-12  # truths do not change


def test_a_sample_is_a_function_of_its_seed_and_counter() -> None:
    pde = build_pde("darcy")
    grid = pde.grid(20)
    one = pde.sample(1, 7, grid)[0]
    assert one.shape == (2, 20, 20) and one.dtype == np.float64
    assert np.array_equal(one, pde.sample(1, 7, grid)[0])
    assert set(np.unique(one[0])) == {3.0, 12.0} and (one[1, 1:-1, 1:-1] > 0).all()
    assert not np.array_equal(one, pde.sample(1, 8, grid)[0])
    assert not np.array_equal(one, pde.sample(2, 7, grid)[0])


def test_permeability_that_is_too_small_is_raised_and_counted() -> None:
    pde = build_pde("darcy")
    grid = pde.grid(16)
    a = np.full((1, 16, 16), 3.0)
    a[0, 4, 4:7] = (-1.0, 0.0, 0.1)
    solved, raised = pde.solve(a, grid)
    limited = np.maximum(a, pde.lowest)
    assert raised == 3 and np.array_equal(solved[0], a[0]) and np.array_equal(solved[1], pde.solve(limited, grid)[0][1])
    fields = torch.from_numpy(pde.solve(limited, grid)[0])[None]
    assert norms(pde, grid, fields)["l2"] < 1e-10


def test_phase_error_is_the_distance_to_the_nearest_phase() -> None:
    pde = build_pde("darcy")
    fields = torch.zeros(2, 2, 4, 4)
    fields[0, 0] = 3.0
    fields[1, 0] = 12.0
    fields[1, 0, 0] = 11.0  # 4 of 16 points are off by 1
    assert pde.phase_error(fields).tolist() == [0.0, 0.25]
    assert build_pde("darcy", {"variant": "log_normal"}).phase_error(fields) is None


def test_permeability_is_input_and_pressure_is_solution() -> None:
    pde = build_pde("darcy")
    assert [c.name for c in pde.channels] == ["permeability", "pressure"]
    assert solution_mask(pde, pde.grid(5)).flatten(1).all(dim=1).tolist() == [False, True]
    assert solution_mask(pde, pde.grid(5)).sum() == 25


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("darci", {}, ["pde.name='darci'", "darcy"]),
        ("darcy", {"varient": "two_phase"}, ["pde.params.varient", "variant"]),
        ("darcy", {"variant": 3}, ["pde.params.variant=3", "str"]),
        ("darcy", {"low": "3"}, ["pde.params.low='3'", "float"]),
        ("darcy", {"low": True}, ["pde.params.low=True"]),
        ("darcy", {"variant": "gravel"}, ["pde.params.variant='gravel'", "log_normal"]),
        ("darcy", {"low": 13.0}, ["pde.params.low=13.0"]),
        ("darcy", {"low": 0}, ["pde.params.low=0"]),
        ("darcy", {"high": float("inf")}, ["pde.params", "high=inf"]),
        ("darcy", {"source": 0.0}, ["pde.params.source=0"]),
        ("darcy", {"source": float("nan")}, ["pde.params.source=nan"]),
        ("darcy", {"tau": 0.0}, ["pde.params.tau=0.0"]),
        ("darcy", {"alpha": -1.0}, ["pde.params.alpha=-1.0"]),
        ("darcy", {"alpha": 1e9}, ["pde.params.alpha=1000000000.0", "1.01 to 20"]),
    ],
)
def test_bad_parameters_are_refused_in_one_line(name: str, params: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        build_pde(name, params)
    text = str(raised.value)
    assert "\n" not in text and all(word in text for word in words), text
