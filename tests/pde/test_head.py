"""Solver steps behind a generator: what they lower, what they leave alone, and what they do with fields of any quality."""

from __future__ import annotations

import pytest
import torch

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import Pde, solution_mask, truths
from pidscale.pde.head import check_head, correct, has_head
from pidscale.pde.parameters import draw_params
from pidscale.pde.residuals import residual_squares

NAMES = sorted(PDES)
SWEPT = ["burgers", "navier_stokes", "reaction_diffusion"]  # solved by sweeps, not exactly
EXACT = [name for name in NAMES if name not in (*SWEPT, "darcy")]


def some(name: str, points: int = 32, count: int = 6, **params: float) -> tuple[Pde, Grid, torch.Tensor, torch.Tensor]:
    pde = build_pde(name, params)
    grid = pde.grid(points)
    return pde, grid, *truths(pde, 3, range(count), grid)


def errors(pde: Pde, grid: Grid, found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Error of the solution of each sample relative to the truth's."""
    mask = solution_mask(pde, grid)
    return ((found - truth) * mask).flatten(1).norm(dim=1) / (truth * mask).flatten(1).norm(dim=1)


def dual(pde: Pde, grid: Grid, fields: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    return residual_squares(pde, grid, fields, params)["dual"].sqrt()


def guesses(pde: Pde, grid: Grid, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """Fields with the inputs of truths, and solutions of every quality."""
    mask = solution_mask(pde, grid)
    sizes = (truth * mask).flatten(2).norm(dim=2).mean(dim=0) / mask.flatten(1).sum(dim=1).clamp_min(1).sqrt()
    noise = sizes[:, None, None] * torch.randn(
        truth.shape, dtype=truth.dtype, generator=torch.Generator().manual_seed(1)
    )
    return {
        "near": torch.where(mask, 0.9 * truth + 0.1 * truth.roll(1, 0) + 0.01 * noise, truth),
        "null": torch.where(mask, pde.trivial(truth), truth),
        "stranger": torch.where(mask, truth.roll(1, 0), truth),
        "noise": torch.where(mask, noise, truth),
    }


def with_a_wild_one(pde: Pde, grid: Grid, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Three near fields, and the same with values in the last one that no steps can help."""
    near = guesses(pde, grid, truth)["near"]
    wild = near.clone()
    wild[2] = 1e3 * wild[2] + 50
    return near, wild


@pytest.mark.parametrize("name", NAMES)
def test_steps_lower_the_error_of_any_solution(name: str) -> None:
    pde, grid, truth, params = some(name)
    truth = correct(pde, grid, truth, params, 8)  # without the truncation error of a coarse grid
    for kind, fields in guesses(pde, grid, truth).items():
        before = errors(pde, grid, fields, truth)
        for steps in (1, 2, 4):
            after = errors(pde, grid, correct(pde, grid, fields, params, steps), truth)
            assert (after < before).all(), f"{kind}, {steps} steps: {before} -> {after}"
        if name in SWEPT and kind != "noise":
            two = errors(pde, grid, correct(pde, grid, fields, params, 2), truth)
            assert (two < 0.1 * before).all(), f"{kind}: {before} -> {two}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "points", "own"),
    [
        ("burgers", 128, {}),
        ("burgers", 192, {}),
        ("burgers", 32, {"viscosity": 0.1}),
        ("navier_stokes", 48, {}),
        ("navier_stokes", 16, {"viscosity": 0.02}),
        ("reaction_diffusion", 48, {}),
        ("reaction_diffusion", 16, {"duration": 10.0, "frames": 11}),
    ],
)
def test_sweeps_take_noise_away_on_fine_grids_and_with_strong_diffusion(
    name: str, points: int, own: dict[str, float], dtype: torch.dtype
) -> None:
    """White noise decays within an interval in most of its waves, which no cubic between states describes."""
    pde, grid, truth, params = some(name, points, 2, **own)
    truth = correct(pde, grid, truth, params, 8)
    drawn = torch.randn(truth.shape, dtype=truth.dtype, generator=torch.Generator().manual_seed(1))
    fields = truth + torch.where(solution_mask(pde, grid), 0.01 * truth.std() * drawn, 0.0)
    found = correct(pde, grid, fields.to(dtype), params, 2)
    assert (errors(pde, grid, found, truth) < 0.15 * errors(pde, grid, fields, truth)).all()
    before, after = (residual_squares(pde, grid, one, params) for one in (fields, found.double()))
    assert (after["l2"] < before["l2"]).all() and (after["dual"] < before["dual"]).all()


@pytest.mark.parametrize("name", [*EXACT, "darcy"])
def test_linear_equations_are_solved(name: str) -> None:
    """Exactly, or to 5 in a thousand after four steps of conjugate gradients, which the contrast of 4 allows."""
    pde, grid, truth, params = some(name)
    found = correct(pde, grid, guesses(pde, grid, truth)["near"], params, 4)
    assert float(dual(pde, grid, found, params).max()) < (0.005 if name == "darcy" else 1e-9)


@pytest.mark.parametrize("phases", [(3.0, 12.0), (1.0, 100.0)])
def test_conjugate_gradients_fall_at_the_rate_of_the_contrast(phases: tuple[float, float]) -> None:
    """In the energy norm, after k steps: at most 2 q^k, q = (sqrt(c) - 1) / (sqrt(c) + 1)."""
    low, high = phases
    pde, grid, truth, params = some("darcy", low=low, high=high)
    fields = pde.trivial(truth)
    a = truth[:, 0]

    def energy(found: torch.Tensor) -> torch.Tensor:
        e = (found - truth)[:, 1]
        along_y = (a[:, 1:] + a[:, :-1]) / 2 * (e[:, 1:] - e[:, :-1]).square()
        along_x = (a[:, :, 1:] + a[:, :, :-1]) / 2 * (e[:, :, 1:] - e[:, :, :-1]).square()
        return (along_y.flatten(1).sum(1) + along_x.flatten(1).sum(1)).sqrt()

    root = (high / low) ** 0.5
    rate = (root - 1) / (root + 1)
    before = first = energy(fields)
    for steps in range(1, 13):
        after = energy(correct(pde, grid, fields, params, steps))
        assert (after < before).all() and (after <= 2 * rate**steps * first).all()
        before = after


@pytest.mark.parametrize("name", NAMES)
def test_truths_stay_within_their_floor(name: str) -> None:
    """In float32, as they are stored. What sweeps change is what the residual finds in truths: its error of truncation."""
    pde, grid, truth, params = some(name)
    stored = truth.float()
    floor = dual(pde, grid, stored, params)
    for steps in (1, 2, 4):
        found = correct(pde, grid, stored, params, steps)
        assert (errors(pde, grid, found, stored) <= 10 * floor.clamp_min(1e-6)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_dtype_stay(name: str, dtype: torch.dtype) -> None:
    pde, grid, truth, params = some(name, 16, 3)
    fields = guesses(pde, grid, truth)["noise"].to(dtype)
    found = correct(pde, grid, fields, params, 2)
    mask = solution_mask(pde, grid)
    assert found.dtype == dtype and torch.equal(found.masked_fill(mask, 0), fields.masked_fill(mask, 0))
    assert not torch.equal(found, fields) and torch.equal(correct(pde, grid, fields, params, 0), fields)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_changes_no_other_sample(name: str) -> None:
    pde, grid, truth, params = some(name, 16, 3)
    near, wild = with_a_wild_one(pde, grid, truth)
    alone = correct(pde, grid, near[:2], params[:2], 3)
    beside = correct(pde, grid, wild, params, 3)
    torch.testing.assert_close(beside[:2], alone, rtol=1e-12, atol=1e-12)
    assert beside.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_no_field_becomes_worse(name: str) -> None:
    """Fields that have nothing to do with the equation: noise in all channels, constants, large values."""
    pde, grid, _, params = some(name, 16, 4)
    shape = (4, len(pde.channels), *grid.shape)
    noise = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for fields in (noise, 1 + 0 * noise, 0 * noise, 100 * noise):
        for steps in (1, 4):
            found = correct(pde, grid, fields, params, steps)
            assert found.isfinite().all()
            if name not in ("darcy",):  # whose residual is that of the permeability as it is, also below 0
                assert (dual(pde, grid, found, params) <= dual(pde, grid, fields, params) * (1 + 1e-9) + 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_steps_are_correct(name: str) -> None:
    frames = {"frames": 4} if "frames" in build_pde(name).params_dict() else {}
    pde, grid, truth, params = some(name, 6, 2, **frames)
    fields = guesses(pde, grid, truth)["near"].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: correct(pde, grid, x, params, 2), (fields,), fast_mode=True)


@pytest.mark.parametrize("name", ["darcy", "burgers"])
def test_autocast_does_not_change_the_steps(name: str) -> None:
    pde, grid, truth, params = some(name, 16, 2)
    fields = guesses(pde, grid, truth)["near"].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = correct(pde, grid, fields, params, 2)
    assert torch.equal(inside, correct(pde, grid, fields, params, 2))


def test_a_permeability_below_its_floor_is_solved_as_the_solver_does() -> None:
    pde, grid, truth, _ = some("darcy", 16, 2)
    fields = truth.clone()
    fields[:, 0, 4:8, 4:8] = -1.0
    found = correct(pde, grid, fields, steps=40)
    solved = [torch.from_numpy(pde.solve(one.numpy(), grid)[0]) for one in fields]
    torch.testing.assert_close(found, torch.stack(solved), rtol=1e-6, atol=1e-9)


def test_values_that_are_not_finite_stay_in_their_sample() -> None:
    pde, grid, truth, params = some("burgers", 16, 3)
    fields = guesses(pde, grid, truth)["near"]
    fields[1, 0, 3, 3] = torch.nan
    found = correct(pde, grid, fields, params, 2)
    assert found[[0, 2]].isfinite().all() and int(found[1].isnan().sum()) == 1


def test_what_has_no_head_or_too_many_steps_is_refused() -> None:
    class Bare:
        name = "mine"

    assert all(has_head(build_pde(name)) for name in NAMES) and not has_head(Bare())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"head=2: mine has no solver steps of its own .*; set head=0"):
        check_head(Bare(), 2)  # type: ignore[arg-type]
    check_head(Bare(), 0)  # type: ignore[arg-type]
    for steps in (-1, 65, 10**9):
        with pytest.raises(UserError, match=rf"head={steps}: expected a number of solver steps from 0 to 64"):
            check_head(build_pde("darcy"), steps)
    pde, grid, truth, _ = some("heat", 8, 2)
    with pytest.raises(UserError, match="diffusivity"):
        correct(pde, grid, truth)
    with pytest.raises(UserError, match="physical fields"):
        correct(pde, grid, truth[:, 1:], draw_params(pde, 0, "x", range(2)))


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_that_steps_cannot_help_spoils_no_gradient(name: str) -> None:
    pde, grid, truth, params = some(name, 16, 3)
    near, wild = with_a_wild_one(pde, grid, truth)
    wild.requires_grad_()
    near.requires_grad_()
    correct(pde, grid, wild, params, 3).square().flatten(1).mean(dim=1).sum().backward()
    correct(pde, grid, near, params, 3).square().flatten(1).mean(dim=1).sum().backward()
    assert wild.grad is not None and near.grad is not None and wild.grad.isfinite().all()
    torch.testing.assert_close(wild.grad[:2], near.grad[:2], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("name", "channel", "value"), [("darcy", 1, 1e38), ("reaction_diffusion", 3, 1e20)])
def test_a_sample_that_overflows_keeps_its_own_gradient(name: str, channel: int, value: float) -> None:
    pde, grid, truth, params = some(name, 8, 3)
    fields = truth.float()
    fields[1, channel, 3, 3] = value
    fields.requires_grad_()
    found = correct(pde, grid, fields, params, 3)
    assert torch.equal(found[1], fields[1])
    found.sum().backward()
    assert fields.grad is not None and fields.grad.isfinite().all() and (fields.grad[1] == 1).all()
