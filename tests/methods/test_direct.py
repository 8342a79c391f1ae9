"""Tasks without a student: the equation is solved where it determines the field, and the rest stays at the mean."""

from __future__ import annotations

import pytest
import torch

from pidscale.config import UserError
from pidscale.generator.scales import residual_scales
from pidscale.generator.tasks.observations import observe
from pidscale.generator.tasks.search import Search
from pidscale.methods.direct import direct, mean_field
from pidscale.pde.base import truths
from tests.generator.linear import linear_student

STUDENT = linear_student("poisson", points=12)
PDE = STUDENT.pde
GRID = STUDENT.grid
UNITS = STUDENT.normaliser
TRUTH = truths(PDE, 3, range(2), GRID).fields.float()
SCALES = {"l2": 0.01, "dual": 0.01, "boundary": 0.01}
MANY = Search(steps=600, physics=1.0)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_the_forward_problem_is_solved() -> None:
    seen = observe(STUDENT, "forward", TRUTH[:, 0])
    answer = direct(PDE, GRID, UNITS, seen, SCALES, search=MANY)
    assert off(answer.fields["solution"], TRUTH[:, 1]) < 0.02 and answer.residual["l2"].max() < 0.02
    assert answer.mismatch.max() < 0.5 and (answer.calls <= 600).all()
    without = direct(PDE, GRID, UNITS, seen, SCALES, search=Search(steps=600, physics=0.0))
    assert off(without.fields["solution"], TRUTH[:, 1]) > 0.5  # without the equation the solution is not found


def test_the_inverse_problem_is_solved() -> None:
    answer = direct(PDE, GRID, UNITS, observe(STUDENT, "inverse", TRUTH[:, 1]), SCALES, search=MANY)
    inside = (slice(None), slice(1, -1), slice(1, -1))  # the equation does not determine the source on the edge
    assert off(answer.fields["source"][inside], TRUTH[:, 0][inside]) < 0.05
    edge = answer.fields["source"][:, 0] - UNITS.mean[0]
    assert edge.abs().max() < 1e-5  # so the source stays at the mean there


def test_without_the_equation_only_known_values_are_found() -> None:
    known = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.3
    seen = observe(STUDENT, "reconstruct", TRUTH, torch.stack([known, known]))
    answer = direct(PDE, GRID, UNITS, seen, SCALES, search=Search(steps=100, physics=0.0))
    joint = torch.stack([*answer.fields.values()], dim=1)
    at = known.expand_as(joint)
    assert answer.mismatch.max() < 0.05 and off(joint[at], TRUTH[at]) < 0.02
    mean = torch.tensor(UNITS.mean)[:, None, None].expand_as(joint)
    torch.testing.assert_close(joint[~at], mean[~at])


def test_the_mean_field_is_the_mean() -> None:
    seen = observe(STUDENT, "forward", TRUTH[:, 0])
    answer = mean_field(PDE, GRID, UNITS, seen)
    for c, name in enumerate(STUDENT.channels):
        torch.testing.assert_close(answer.fields[name], torch.full((2, 12, 12), UNITS.mean[c]))
    away = ((TRUTH[:, 0] - UNITS.mean[0]).square().mean(dim=(1, 2)).sqrt()) / seen.sigma_NC[:, 0]
    torch.testing.assert_close(answer.mismatch, away)
    assert answer.calls.tolist() == [0, 0]
    given = mean_field(PDE, GRID, UNITS, seen, mean_CYX=TRUTH[1])
    torch.testing.assert_close(given.fields["source"][0], TRUTH[1, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        given.residual["l2"], STUDENT.residual(STUDENT.split(TRUTH[[1, 1]]))["l2"], atol=1e-3, rtol=1e-2
    )


def test_a_search_starts_from_a_given_mean_field() -> None:
    seen = observe(STUDENT, "forward", TRUTH[:, 0])
    near = direct(PDE, GRID, UNITS, seen, SCALES, search=Search(steps=5), mean_CYX=TRUTH[0])
    assert near.energy[0] < 0.01 * direct(PDE, GRID, UNITS, seen, SCALES, search=Search(steps=5)).energy[0]
    with pytest.raises(UserError, match=r"mean_CYX: shape \[12, 12\], expected \[2, 12, 12\]"):
        direct(PDE, GRID, UNITS, seen, SCALES, mean_CYX=TRUTH[0, 0])


def test_unknown_parameters_are_searched_for() -> None:
    heat = linear_student("heat", frames=4, points=8)
    truth = truths(heat.pde, 1, range(1), heat.grid)
    seen = observe(heat, "reconstruct", truth.fields.float())
    low, high = heat.pde.varying["diffusivity"]
    scales = residual_scales(heat) | {"l2": 1e-4, "dual": 1e-4}
    answer = direct(heat.pde, heat.grid, heat.normaliser, seen, scales, search=Search(steps=400))
    middle = mean_field(heat.pde, heat.grid, heat.normaliser, seen).fields["diffusivity"]
    assert middle.tolist() == pytest.approx([(low + high) / 2])
    wanted = float(truth.params[0, 0])
    assert abs(float(answer.fields["diffusivity"]) - wanted) < 0.1 * abs(wanted - float(middle))
