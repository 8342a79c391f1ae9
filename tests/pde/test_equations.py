"""Every equation of the library: its residual tells truth from nothing in both norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pidscale.config import UserError
from pidscale.metrics import solution_error
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde import PDES, build_pde
from pidscale.pde.base import Pde, shown_channels, shuffled, solution_mask, truths
from pidscale.pde.evolution import Evolution
from pidscale.pde.parameters import condition, draw_params
from pidscale.pde.residuals import residual_mean_abs, residual_rms, residual_squares
from pidscale.pde.strip import Strip

NAMES = sorted(PDES)
IN_TIME = [name for name in NAMES if isinstance(build_pde(name), (Strip, Evolution))]
STEADY = [name for name in NAMES if name not in IN_TIME]
EXACT = ["advection_diffusion", "heat", "wave"]  # solved exactly, wave by wave
TO_ROUNDING = [*STEADY, *EXACT]  # solver and residual use the same discretisation: no truncation error


def some(name: str, points: int, count: int = 8) -> tuple[Pde, Grid, torch.Tensor, torch.Tensor]:
    pde = build_pde(name)
    grid = pde.grid(points)
    return pde, grid, *truths(pde, 3, range(count), grid)


@pytest.mark.parametrize(
    ("name", "points"), [(n, p) for n in NAMES for p in ((64, 128) if n == "burgers" else (32, 64))]
)
def test_truths_score_far_below_null_and_shuffled_solutions(name: str, points: int) -> None:
    pde, grid, fields, params = some(name, points)
    stored = fields.float()  # as shards hold it
    truth, trivial, other = (
        residual_rms(pde, grid, f, params) for f in (stored, pde.trivial(stored), shuffled(pde, grid, stored))
    )
    for norm in ("l2", "dual"):
        assert 0.3 < trivial[norm] < 3 and other[norm] > 0.3  # the scale is the size of the equation's own terms
        assert truth[norm] <= (0.1 if name in IN_TIME else 0.01) * min(trivial[norm], other[norm])
    assert truth["boundary"] <= 1e-6
    size, null = (residual_mean_abs(pde, grid, f, params, chunk=3) for f in (stored, pde.trivial(stored)))
    term = pde.residual(Window(grid), stored, params)["interior"]
    assert (
        size == pytest.approx(float((term.values.double().abs() / term.scale).mean()), rel=1e-5) and size < 0.2 * null
    )


@pytest.mark.parametrize("name", TO_ROUNDING)
def test_solver_and_residual_agree_to_rounding(name: str) -> None:
    """They share no operator, so that one wrong stencil cannot make them agree."""
    pde, grid, fields, params = some(name, 48, 4)
    assert residual_rms(pde, grid, fields, params)["l2"] < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_correct(name: str) -> None:
    pde = build_pde(name)
    grid = pde.grid(6)
    shape = (2, len(pde.channels), *grid.shape)
    fields = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    params = draw_params(pde, 0, "gradients", range(2))

    def squares(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(value for _, value in sorted(residual_squares(pde, grid, x, params).items()))

    assert torch.autograd.gradcheck(squares, (fields,))
    for key, square in zip(sorted(residual_squares(pde, grid, fields, params)), squares(fields), strict=True):
        if key != "boundary" or name in STEADY:
            assert torch.autograd.grad(square.sum(), fields, retain_graph=True)[0].abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_changes_neither_the_scale_nor_other_samples(name: str) -> None:
    pde, grid, fields, params = some(name, 16, 2)
    both = residual_squares(pde, grid, torch.cat([fields[:1], 50 * fields[1:] + 3]), params)
    for norm, values in residual_squares(pde, grid, fields[:1], params[:1]).items():
        torch.testing.assert_close(both[norm][:1], values)
    if name in IN_TIME:
        assert both["boundary"].abs().max() == 0
        return
    twice = residual_squares(pde, grid, pde.trivial(fields) + 1e-3)
    thrice = residual_squares(pde, grid, pde.trivial(fields) + 1e-3 * 3)
    assert (thrice["boundary"] / twice["boundary"]).numpy() == pytest.approx(9.0)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_change_the_residual(name: str) -> None:
    pde, grid, fields, params = some(name, 32, 2)
    noisy = (fields * 1.01).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = residual_squares(pde, grid, noisy, params)
    for norm, values in residual_squares(pde, grid, noisy, params).items():
        assert torch.equal(inside[norm], values) and values.dtype == torch.float32


@pytest.mark.parametrize("name", STEADY)
def test_white_noise_hardly_raises_the_dual_norm(name: str) -> None:
    """Noise of one part in a thousand at 128 points a side: the l2 norm weighs it by 1 / h^2, the dual norm like an error."""
    pde, grid, fields, _ = some(name, 128, 4)
    noise = torch.randn(fields.shape, generator=torch.Generator().manual_seed(0), dtype=fields.dtype)
    noise[:, ~solution_mask(pde, grid)] = 0
    noisy = residual_rms(pde, grid, fields * (1 + 1e-3 * noise))
    trivial = residual_rms(pde, grid, pde.trivial(fields))
    assert noisy["dual"] < 0.1 * trivial["dual"] and noisy["l2"] > 3 * noisy["dual"]


@pytest.mark.parametrize("name", STEADY)
def test_smoothing_lowers_the_l2_residual_but_not_the_solution_error(name: str) -> None:
    pde, grid, fields, _ = some(name, 32)
    outputs = [i for i, channel in enumerate(pde.channels) if channel.role == "solution"]
    wrong = fields.clone()
    size = fields[:, outputs].std()
    noise = torch.randn(8, len(outputs), 30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wrong[:, outputs, 1:-1, 1:-1] = 1.3 * wrong[:, outputs, 1:-1, 1:-1] + 0.03 * size * noise
    smooth = pde.smooth(wrong, 3, grid)
    before, after = (residual_rms(pde, grid, f) for f in (wrong, smooth))
    error = [solution_error(f[:, outputs], fields[:, outputs]) for f in (wrong, smooth)]
    assert after["l2"] < before["l2"] / 3 and error[1] > 0.9 * error[0] > 0.25
    assert float((pde.smooth(fields, 3, grid) - fields).abs().max()) < 1e-12  # truths do not change


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_a_function_of_its_seed_and_counter(name: str) -> None:
    pde = build_pde(name)
    grid = pde.grid(20)
    one, params = pde.sample(1, 7, grid)
    assert one.shape == (len(pde.channels), *grid.shape) and one.dtype == np.float64
    assert np.array_equal(one, pde.sample(1, 7, grid)[0])
    for other in (pde.sample(1, 8, grid)[0], pde.sample(2, 7, grid)[0]):
        assert not np.array_equal(one, other)
    mask = solution_mask(pde, grid).numpy()
    solved, raised = pde.solve(np.where(mask, 7.0, one), grid, list(params.values()))
    assert raised == 0 and mask.any() and np.array_equal(solved[~mask], one[~mask])
    # a solver that starts from a coarse row does not have the finer row that the truth was made from
    np.testing.assert_allclose(solved, one, rtol=0, atol={"burgers": 0.01, "stokes": 0.01}.get(name, 1e-12))
    assert 1 <= len(shown_channels(pde)) <= 4 and shown_channels(pde)[-1] == len(pde.channels) - 1


@pytest.mark.parametrize("name", NAMES)
def test_an_equation_is_rebuilt_from_its_plain_parameters(name: str) -> None:
    pde = build_pde(name)
    assert pde.name == name and pde.residual_scale > 0
    assert {channel.role for channel in pde.channels} <= {"input", "solution"}
    assert list(pde.sample(0, 0, pde.grid(20))[1]) == list(pde.varying)
    again = build_pde(name, pde.params_dict())
    assert again == pde


VARYING = [name for name in NAMES if build_pde(name).varying]


@pytest.mark.parametrize("name", VARYING)
def test_the_residual_of_a_sample_uses_its_own_parameters(name: str) -> None:
    pde, grid, fields, params = some(name, 32, 6)
    right = residual_rms(pde, grid, fields, params)["l2"]
    for column in range(len(pde.varying)):
        wrong = params.clone()
        wrong[3, column] *= 1.3
        squares = residual_squares(pde, grid, fields, wrong)["l2"].sqrt()
        assert squares[3] > max(0.01, 20 * right) and squares[[0, 1, 2, 4, 5]].max() <= 3 * right + 1e-12
    assert residual_rms(pde, grid, fields, params.roll(1, dims=0))["l2"] > 0.05
    for missing in (None, params[:3], params[:, :0]):
        with pytest.raises(UserError, match=next(iter(pde.varying))):
            residual_squares(pde, grid, fields, missing)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_drawn_uniformly_by_counter(name: str) -> None:
    pde = build_pde(name)
    drawn = draw_params(pde, 5, "s", range(400))
    assert drawn.shape == (400, len(pde.varying)) and drawn.dtype == torch.float64
    assert torch.equal(drawn[7:9], draw_params(pde, 5, "s", torch.tensor([7, 8])))
    scaled = condition(pde, drawn)
    assert scaled.shape == drawn.shape and scaled.dtype == torch.float32
    if pde.varying:
        low, high = torch.tensor(list(pde.varying.values()), dtype=torch.float64).T
        assert (drawn > low).all() and (drawn < high).all() and scaled.abs().max() <= 1
        assert scaled.mean(dim=0).abs().max() < 0.12 and scaled.std(dim=0).min() > 0.5
        assert not torch.equal(drawn, draw_params(pde, 5, "t", range(400)))


def test_a_range_may_be_a_single_value() -> None:
    pde = build_pde("heat", {"diffusivity_low": 1e-3, "diffusivity_high": 1e-3})
    assert draw_params(pde, 0, "s", range(3)).unique().tolist() == [1e-3]
    assert condition(pde, draw_params(pde, 0, "s", range(3))).abs().max() == 0
    with pytest.raises(UserError, match=r"diffusivity_low=0\.002, diffusivity_high=0\.001"):
        build_pde("heat", {"diffusivity_low": 2e-3, "diffusivity_high": 1e-3})


@pytest.mark.parametrize("name", ["darcy", "heat", "burgers"])
def test_fields_and_grids_of_another_kind_are_refused(name: str) -> None:
    pde, grid, fields, params = some(name, 8, 2)
    assert len(residual_squares(pde, grid, fields, params)["l2"]) == 2
    fewer_channels = fields[:, 1:]
    fewer_rows = fields[:, :, 1:]
    for wrong in (
        fields.half(),
        fields.bfloat16(),
        fields.int(),
        fields[0],
        fields[:0],
        fewer_channels,
        fewer_rows,
        fields.numpy(),
    ):
        with pytest.raises(UserError, match=rf"{name}: its residual takes physical fields .* not ") as raised:
            residual_squares(pde, grid, wrong, params)
        assert "\n" not in str(raised.value)
    other = Grid(grid.shape, kind="cell", boundary="zero_flux")
    with pytest.raises(
        UserError, match=rf"{name}: its residual is measured on {grid.kind} points .* not on cell points"
    ):
        residual_squares(pde, other, fields, params)
