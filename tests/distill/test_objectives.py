"""The distillation objective: match and physics, which channels the residual may move, and the scales it is divided by."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pidscale.config import DistillSettings, LambdaSettings
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import mismatch, ramp
from pidscale.distill.objectives.physics import Physics, active_weights, extra_measures, frozen_scales, weights_on
from pidscale.distill.objectives.piddm import Piddm
from pidscale.distill.preflight import weights_line
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.darcy import Darcy
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS
from tests.small import bare_teacher

PDE = Darcy()
GRID = PDE.grid(16)
UNITS = Normaliser((7.5, 0.006), (4.5, 0.004))
WEIGHTS = {"l2": 0.3, "dual": 0.7, "boundary": 0.2}
SCALES = {"l2": 4.0, "dual": 0.5, "boundary": 0.01}


def physics(gradient_to="all", weights=WEIGHTS):
    return Physics(PDE, Window(GRID), UNITS, weights, SCALES, gradient_to)


def piddm(x, endpoint, terms, huber=0.0, power=0.0, **settings):
    """Loss and parts of samples beside endpoints, of fields of any shape."""
    settings = DistillSettings(objective={"huber": huber, "power": power}, **({"physics_from": 0.0} | settings))
    teacher = bare_teacher(None, PDE, GRID, UNITS, EdmNoise())
    objective = Piddm(settings, teacher, Window(Grid(tuple(x.shape[2:]))), terms)
    if x.shape[1] == 1:
        x, endpoint = x.expand(-1, 2, -1, -1), endpoint.expand(-1, 2, -1, -1)
    empty = torch.zeros(len(x), 0)
    return objective.compared(x, Batch(0, torch.arange(len(x)), endpoint, empty, empty, endpoint))[:2]


@pytest.fixture
def sample():
    torch.manual_seed(0)
    x = 0.5 * torch.randn(3, 2, 16, 16, requires_grad=True)
    return x.detach().requires_grad_(), 0.5 * torch.randn(3, 2, 16, 16)


def gradient(loss, x):
    (found,) = torch.autograd.grad(loss.sum(), x)
    return found


def test_the_loss_is_match_plus_weighted_scaled_squares(sample):
    x, endpoint = sample
    loss, parts = piddm(x, endpoint, physics())
    squares = residual_squares(PDE, GRID, UNITS.decode(x))
    assert loss.shape == (3,) and set(parts) == {"match", *NORMS}
    match = ((x - endpoint) ** 2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(parts["match"], match)
    expected = match + 0.3 / 4 * squares["l2"] + 0.7 / 0.5 * squares["dual"] + 0.2 / 0.01 * squares["boundary"]
    torch.testing.assert_close(loss, expected)
    for name in NORMS:
        assert torch.equal(parts[name], squares[name]) and (squares[name] > 0).all()


def test_without_physics_only_the_match_is_left(sample):
    x, endpoint = sample
    loss, parts = piddm(x, endpoint, None)
    assert set(parts) == {"match"} and torch.equal(loss, parts["match"])
    nothing, seen = piddm(x, endpoint, physics(weights=dict.fromkeys(NORMS, 0.0)))
    assert torch.equal(nothing, loss) and set(seen) == {"match", *NORMS}  # still watched
    assert torch.equal(gradient(nothing, x), gradient(loss, x))


def test_a_huber_match_is_squared_near_and_linear_far():
    x, width = torch.tensor([1e-4, 0.05, 10.0]).reshape(3, 1, 1, 1).double(), 0.05
    found = mismatch(x, torch.zeros_like(x), width)
    assert found[0] == pytest.approx(1e-8, rel=1e-5)  # d^2
    assert found[1] == pytest.approx(2 * width**2 * (2**0.5 - 1))  # by hand at d = c
    assert found[2] == pytest.approx(2 * width * 10.0, rel=0.01)  # 2 c |d|
    assert torch.equal(mismatch(x, torch.zeros_like(x)), x.flatten() ** 2)


def test_a_huber_match_keeps_a_jump_that_noise_leaves_open():
    """Endpoints that are 1 seven times of ten and -1 else: the squared match is least at 0.4, the other one near 1."""
    endpoint = torch.tensor([1.0] * 7 + [-1.0] * 3).reshape(10, 1, 1, 1).expand(10, 1, 4, 4)
    candidates = torch.linspace(-1, 1, 201)
    best = {
        width: candidates[
            int(
                torch.stack([piddm(c.expand_as(endpoint), endpoint, None, width)[0].sum() for c in candidates]).argmin()
            )
        ]
        for width in (0.0, 0.03)
    }
    assert best[0.0] == pytest.approx(0.4, abs=0.02) and best[0.03] > 0.95


def test_the_match_of_powers_holds_what_regression_flattens(sample):
    """Endpoints 1 or -1, seven to three, in places the noise leaves open: powers alone ask for fields of mean square 1."""
    x, endpoint = sample[0].detach(), sample[1]
    loss, parts = piddm(x, endpoint, None, 0.0, 0.3)
    torch.testing.assert_close(loss, parts["match"] + 0.3 * parts["power"])
    by_hand = [
        [((a**2).mean() - (b**2).mean()) / 0.25 for a, b in zip(*p, strict=True)] for p in zip(x, endpoint, strict=True)
    ]
    torch.testing.assert_close(
        parts["power"], torch.tensor([[float(v) for v in p] for p in by_hand]).square().mean(dim=1)
    )
    assert set(piddm(x, endpoint, physics(), 0.0, 0.3)[1]) == {"match", "power", *NORMS}

    ends = torch.tensor([1.0] * 7 + [-1.0] * 3).reshape(10, 1, 1, 1).expand(10, 1, 4, 4)
    candidates = torch.linspace(0, 1.2, 241)
    flat, held = (
        float(
            candidates[
                int(torch.stack([piddm(c.expand_as(ends), ends, None, 0.0, w)[0].sum() for c in candidates]).argmin())
            ]
        )
        for w in (0.0, 1.0)
    )
    assert flat == pytest.approx(0.4, abs=0.02) and 0.9 < held < 1.01
    shifted = endpoint.roll(3, dims=3)  # other places, same powers
    assert float(piddm(shifted, endpoint, None, 0.0, 1.0)[1]["power"].max()) < 1e-10


def test_the_residual_moves_the_solution_alone(sample):
    x, endpoint = sample
    match = gradient(piddm(x, endpoint, None)[0], x)
    held = gradient(piddm(x, endpoint, physics("solution"))[0], x)
    free = gradient(piddm(x, endpoint, physics("all"))[0], x)
    assert torch.equal(held[:, 0], match[:, 0])  # permeability: from the match and nothing else
    torch.testing.assert_close(held[:, 1], free[:, 1])
    assert (held[:, 1] - match[:, 1]).norm() > 1e-3 * match[:, 1].norm()
    assert (free[:, 0] - match[:, 0]).norm() > 1e-6 * match[:, 0].norm()
    for gradient_to in ("solution", "shape", "all"):  # what moves changes no value
        assert torch.equal(piddm(x, endpoint, physics(gradient_to))[0], piddm(x, endpoint, physics())[0])


def test_the_residual_moves_the_shape_of_an_input_and_not_its_size(sample):
    """What is left of the gradient to the permeability is what is left when its part along the field is taken away."""
    x, _ = sample
    free = gradient(sum(physics("all").squares(x).values()), x)
    shape = gradient(sum(physics("shape").squares(x).values()), x)
    torch.testing.assert_close(shape[:, 1], free[:, 1])
    for got, whole, field in zip(shape[:, 0], free[:, 0], x[:, 0].detach(), strict=True):
        torch.testing.assert_close(got, whole - field * (whole * field).sum() / field.square().sum())
        assert abs((got * field).sum()) < 1e-5 * got.norm() * field.norm() < (whole * field).sum().abs()
    nothing = torch.zeros_like(x).requires_grad_()
    assert gradient(physics("shape").squares(nothing)["l2"], nothing).isfinite().all()


def test_a_residual_pays_for_contrast(sample):
    """Why its size is held: the residual of a truth with a wrong pressure falls as its permeability is flattened."""
    truth = torch.from_numpy(PDE.sample(0, 0, GRID)[0][None]).float()
    x = UNITS.encode(truth)
    x[:, 1] += 0.05 * torch.randn_like(x[:, 1])
    x.requires_grad_()
    assert (gradient(physics("all").squares(x)["l2"], x)[:, 0] * x[:, 0]).sum() > 0


def test_fields_of_bad_samples_do_not_leak_into_others(sample):
    x, endpoint = sample
    alone = piddm(x[:1], endpoint[:1], physics())[0]
    torch.testing.assert_close(piddm(x, endpoint, physics())[0][:1], alone)


def test_a_norm_that_was_not_chosen_has_no_weight():
    weights = {"l2": 0.1, "dual": 0.2, "boundary": 0.3, "conservation": 0.4, "initial": 0.0}
    chosen = DistillSettings(weights=LambdaSettings(**weights))
    assert active_weights(replace(chosen, norm="both")) == weights
    assert active_weights(replace(chosen, norm="l2")) == weights | {"dual": 0.0}
    assert active_weights(replace(chosen, norm="dual")) == weights | {"l2": 0.0}
    assert active_weights(replace(chosen, physics_weight=0.5)) == {key: value / 2 for key, value in weights.items()}
    assert extra_measures(weights) == ("conservation",)
    assert extra_measures(active_weights(replace(chosen, physics_weight=0.0))) == ()


def test_a_run_says_what_its_residual_weighs():
    chosen = DistillSettings(weights=LambdaSettings(l2=0.1, dual=0.2, boundary=0.0), norm="both", physics_weight=0.5)
    coarse, fine = Grid((32, 32)), Grid((64, 64))
    line = weights_line(replace(chosen, steps=1000, physics_from=0.33), coarse)
    assert "weighs l2 0.05, dual 0.1 (" in line and "distill.physics_weight=0.5" in line and "step 330 of 1000" in line
    for without in (
        replace(chosen, physics_weight=0.0),
        replace(chosen, weights=LambdaSettings(l2=0.1, dual=0, boundary=0), norm="dual"),
    ):
        assert "left out" in weights_line(without, coarse) and "distill.norm" in weights_line(without, coarse)
    assert "weighs l2 3.2, dual 1.6 (" in weights_line(chosen, fine) and "raised for 64 x 64 points)" in weights_line(
        chosen, fine
    )


def test_weights_grow_on_fine_grids_of_nodes_alone():
    chosen = DistillSettings(weights=LambdaSettings(l2=0.1, dual=0.2, boundary=0.3, conservation=0.4))
    plain = active_weights(chosen)
    for grid in (Grid((32, 32)), Grid((16, 16)), Grid((64, 64), kind="periodic", boundary="periodic")):
        assert weights_on(chosen, grid) == plain
    factors = {"l2": 64, "dual": 16, "boundary": 4, "conservation": 1, "initial": 1}
    for grid in (Grid((64, 64)), Grid((32, 128))):
        assert weights_on(chosen, grid) == pytest.approx({key: plain[key] * factor for key, factor in factors.items()})


@pytest.mark.parametrize("points", [32, 64])
def test_noise_has_the_residual_that_the_weights_of_fine_grids_assume(points):
    """With the number of points a side, l2 grows with the fourth power and dual with the second."""
    found = []
    for side in (points, 2 * points):
        fields = torch.full((4, 2, side, side), 6.0, dtype=torch.float64)
        fields[:, 1] = 1e-3 * torch.randn(
            4, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        found.append(residual_squares(PDE, PDE.grid(side), fields))
    for norm, power in (("l2", 4), ("dual", 2)):
        grown = float(found[1][norm].mean() / found[0][norm].mean())
        assert math.log2(grown) == pytest.approx(power, abs=0.3), norm


@pytest.mark.parametrize(
    ("measured", "floor", "trivial", "expected"),
    [
        (4.0, 0.01, 1.0, 4.0),  # the teacher's own residual
        (1e-9, 0.05, 1.0, 0.25),  # a teacher below ten floors of the truth is held to them
        (1e-9, 1e-6, 3.0, 9e-4),  # nor below a hundredth of nothing at all
        (1e-9, 0.0, 0.0, 1e-4),  # a term that nothing scores 0 on
    ],
)
def test_scales_never_fall_below_what_means_something(measured, floor, trivial, expected):
    scales = frozen_scales(dict.fromkeys(NORMS, measured), dict.fromkeys(NORMS, floor), dict.fromkeys(NORMS, trivial))
    assert scales == pytest.approx(dict.fromkeys(NORMS, expected))


def test_scales_without_a_floor_or_a_trivial_score():
    assert frozen_scales(dict.fromkeys(NORMS, 1e-9), {}, {}) == pytest.approx(dict.fromkeys(NORMS, 1e-4))


def test_lambda_begins_late_and_grows_at_an_even_rate(sample):
    settings = DistillSettings(steps=100, physics_from=0.2, physics_ramp=0.1)
    assert [ramp(settings, step) for step in (20, 24, 29, 30, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    assert ramp(DistillSettings(steps=100, physics_from=0.0), 0) == 1.0
    x, endpoint = sample
    whole, parts = piddm(x, endpoint, physics())
    tenth, seen = piddm(x, endpoint, physics(), steps=10, physics_from=0.0, physics_ramp=1.0)
    torch.testing.assert_close(tenth - parts["match"], (whole - parts["match"]) / 10)
    assert torch.equal(seen["l2"], parts["l2"])  # watched whole


def test_a_distance_may_be_linear(sample):
    x, endpoint = sample
    torch.testing.assert_close(mismatch(x, endpoint, distance="l1"), (x - endpoint).abs().mean(dim=(1, 2, 3)))


def test_an_objective_that_declares_no_partner_has_no_loss_of_one():
    teacher = bare_teacher(None, PDE, GRID, UNITS, EdmNoise())
    goal = Piddm(DistillSettings(), teacher, Window(GRID))
    empty = torch.zeros(1, 0)
    fields = torch.zeros(1, 2, 16, 16)
    assert goal.partners(goal.own) == ()
    with pytest.raises(NotImplementedError, match=r"^Piddm trains no partner 'critic'$"):
        goal.partner_losses("critic", fields, Batch(0, torch.arange(1), fields, empty, empty, fields))
