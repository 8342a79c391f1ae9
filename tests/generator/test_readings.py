"""Readings that are not values at grid points: their adjoint, their part in a search, and what is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.generator.student import Student
from pidscale.generator.tasks.energy import pose
from pidscale.generator.tasks.observations import observe
from pidscale.generator.tasks.readings import Readings, linear, means, points, slopes
from pidscale.methods.base import Question, ask
from pidscale.methods.nearest import Nearest
from tests.generator.known import refused
from tests.generator.linear import affine, linear_student

PLACES = [[0.1, 0.9], [0.5, 0.5], [0.77, 0.21], [1.0, 0.0], [0.34, 0.4]]
BOXES = [[0.0, 1.0, 0.0, 1.0], [0.2, 0.2, 0.1, 0.9], [0.1, 0.45, 0.6, 0.95]]


@pytest.fixture(scope="module")
def student() -> Student:
    return linear_student("poisson")


def weighted(x: Tensor) -> Tensor:
    """A linear function of one's own: two sums over a joint field."""
    return torch.stack([x[:, 0].sum(dim=(1, 2)), (x[:, 1, 1:] - x[:, 1, :-1]).sum(dim=(1, 2))], dim=1)


def kinds(student: Student) -> dict[str, Readings]:
    five, three = [0.0] * 5, [0.0] * 3
    return {
        "points": points(student, "solution", PLACES, five),
        "means": means(student, "source", BOXES, three),
        "slope y": slopes(student, "solution", PLACES, "y", five, 0.1),
        "slope x": slopes(student, "source", PLACES, "x", five, 0.1),
        "own": linear(student, weighted, [0.0, 0.0], 1.0),
    }


@pytest.mark.parametrize("kind", ["points", "means", "slope y", "slope x", "own"])
def test_the_gradient_is_the_adjoint(student: Student, kind: str) -> None:
    read = kinds(student)[kind].read
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 4, generator=draws, dtype=torch.float64, requires_grad=True)
    there = read(x)
    y = torch.randn(there.shape, generator=draws, dtype=torch.float64)
    (back,) = torch.autograd.grad((there * y).sum(), x)
    assert float((there.detach() * y).sum()) == pytest.approx(float((x.detach() * back).sum()), rel=1e-12)
    assert float(there.detach().abs().max()) > 0.01 and not torch.allclose(read(2 * x), there)


def test_readings_are_those_of_a_field_that_is_known(student: Student) -> None:
    y, x = torch.meshgrid(*[torch.linspace(0, 1, 4)] * 2, indexing="ij")
    field = torch.stack([2 * y - x, x * y])[None]
    of = torch.tensor(PLACES)
    found = kinds(student)
    torch.testing.assert_close(found["points"].read(field)[0], of[:, 0] * of[:, 1])  # bilinear is exact
    box = torch.tensor(BOXES)
    torch.testing.assert_close(
        found["means"].read(field)[0], box[:, 0] + box[:, 1] - (box[:, 2] + box[:, 3]) / 2, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(found["slope y"].read(field)[0], of[:, 1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["slope x"].read(field)[0], torch.full((5,), -1.0), rtol=1e-5, atol=1e-5)


def posterior_mean(student: Student, readings: list[Readings]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [D] of a linear student's fields given readings of one field, by the normal equations."""
    matrix, offset = affine(student)
    rows, wanted = [], []
    for one in readings:
        known = one.known_NM[0]
        basis = torch.eye(len(offset), dtype=torch.float64).reshape(-1, 2, 4, 4)
        h = one.read(basis).T  # [M, D]
        sigma = one.sigma_NM[0].double()
        rows.append((h @ matrix / sigma[:, None])[known])
        wanted.append(((one.values_NM[0].double() - h @ offset) / sigma)[known])
    a, b = torch.cat(rows), torch.cat(wanted)
    inverse = torch.linalg.inv(torch.eye(a.shape[1], dtype=torch.float64) + a.T @ a)
    return matrix @ inverse @ a.T @ b + offset, (matrix @ inverse @ matrix.T).diagonal().sqrt()


def some(student: Student) -> list[Readings]:
    """Readings of a field of the student, one of them missing, with noise of several sizes."""
    field = torch.stack([*student.sample(1, seed=7).values()], dim=1)
    made = kinds(student)
    seen = made["points"].read(field)
    seen[0, 2] = math.nan
    return [
        points(student, "solution", PLACES, seen, [0.002, 0.003, 0.002, 0.004, 0.002]),
        means(student, "source", BOXES, made["means"].read(field), 0.1),
        linear(student, weighted, made["own"].read(field), [[0.5, 0.01]]),
    ]


def test_the_likeliest_field_of_a_linear_student_is_the_posterior_mean(student: Student) -> None:
    readings = some(student)
    answer = student.reconstruct(readings=readings, physics=0.0, steps=300, starts=2, field_steps=0)
    mean, spread = posterior_mean(student, readings)
    found = torch.stack([answer.fields[name][0] for name in student.channels]).flatten().double()
    assert ((found - mean).abs() < 0.02 * spread + 1e-4 * mean.abs()).all()
    away = torch.cat([(one.read(found.reshape(1, 2, 4, 4)) - one.values_NM) / one.sigma_NM for one in readings], dim=1)
    known = torch.cat([one.known_NM for one in readings], dim=1)
    assert known.sum() == 9
    assert float(answer.mismatch[0]) == pytest.approx(float(away[known].square().mean().sqrt()), rel=1e-3)


def test_posterior_samples_vary_as_they_should(student: Student) -> None:
    """Noise is added to the readings of each sample, or its spread would be too small."""
    readings = some(student)
    draws = student.posterior("reconstruct", readings=readings, count=200, steps=100)
    mean, spread = posterior_mean(student, readings)
    found = torch.stack([draws.mean[name][0] for name in student.channels]).flatten().double()
    assert ((found - mean).abs() < 5 * spread / 200**0.5 + 1e-6).all()
    ratio = torch.stack([draws.spread[name][0] for name in student.channels]).flatten().double() / spread
    assert 0.95 < float(ratio.mean()) < 1.05 and float(ratio.min()) > 0.75


def test_readings_go_with_values_and_one_applies_to_all_fields(student: Student) -> None:
    values = student.sample(2, seed=1)
    reading = points(student, "source", [[0.3, 0.6]], [1.5], 0.01)
    seen = observe(student, "reconstruct", {"solution": values["solution"]}, readings=[reading])
    assert len(seen) == 2 and len(seen.readings[0]) == 2 and seen.points.tolist() == [17, 17]
    assert len(seen[:1]) == len(seen[:1].readings[0]) == 1
    task = pose(student, seen, None, 0.0)
    fields = torch.stack([*values.values()], dim=1)
    owners = torch.arange(2)
    added = ((reading.read(fields) - 1.5) / 0.01).square()[:, 0]
    torch.testing.assert_close(task.misfit(fields, owners), added)
    answer = student.reconstruct(
        {"solution": values["solution"]}, readings=[reading], steps=5, starts=1, field_steps=20
    )
    assert answer.first is not None and (answer.mismatch < answer.first.mismatch).all()


@pytest.mark.parametrize("wrong", ["x", [1.5], 3, None])
def test_what_is_no_list_of_readings_is_one_line(student: Student, wrong: object) -> None:
    one = points(student, "source", [[0.3, 0.6]], [1.5])
    for readings in (wrong, [one, wrong], one):
        text = refused(lambda readings=readings: student.reconstruct(readings=readings))
        assert "readings: a " in text and "expected a list of what points, means, slopes and linear return" in text


def test_a_method_of_a_comparison_refuses_them(student: Student) -> None:
    seen = observe(student, "reconstruct", None, readings=[points(student, "source", [[0.3, 0.6]], [1.5])])
    asked = Question(student.eps(range(1), 0), torch.zeros(1, 0), torch.arange(1), "reconstruct", seen)
    with pytest.raises(UserError, match="Nearest: takes values at grid points only"):
        ask(Nearest(), student, asked, 1)


WRONG: dict[str, tuple[Callable[[Student], object], str]] = {
    "outside": (lambda s: points(s, "source", [[0.5, 1.5]], [1.0]), "places[0]: x=1.5: outside the grid"),
    "nan place": (lambda s: points(s, "source", [[math.nan, 0.5]], [1.0]), "places[0]: y=nan: outside the grid"),
    "shape": (lambda s: points(s, "source", [0.5, 0.5], [1.0]), "places: shape [2], expected [M, 2]"),
    "channel": (lambda s: points(s, "sorce", [[0.5, 0.5]], [1.0]), "no channel 'sorce'"),
    "count": (lambda s: points(s, "source", [[0.5, 0.5]], [1.0, 2.0]), "values: shape [1, 2], expected [1] or [n, 1]"),
    "none": (lambda s: points(s, "source", [[0.5, 0.5]], [math.nan]), "values: field 0 has no reading"),
    "infinite": (lambda s: points(s, "source", [[0.5, 0.5]], [math.inf]), "values: infinite"),
    "sigma": (lambda s: points(s, "source", [[0.5, 0.5]], [1.0], 0.0), "sigma: expected finite numbers above 0"),
    "sigmas": (lambda s: points(s, "source", PLACES, [1.0] * 5, [1, 1, -1, 1, 1]), "sigma: expected finite numbers"),
    "sigma shape": (lambda s: points(s, "source", PLACES, [1.0] * 5, [1.0, 2.0]), "sigma: shape [2], expected one"),
    "covariance": (lambda s: linear(s, weighted, [1.0, 2.0], [[1.0, 0.5], [0.5, 1.0]]), "sigma: shape [2, 2]"),
    "box": (lambda s: means(s, "source", [[0.5, 0.1, 0, 1]], [1.0]), "boxes[0]=[0.5, 0.1, 0.0, 1.0]: ends before"),
    "axis": (lambda s: slopes(s, "source", [[0.5, 0.1]], "z", [1.0], 1.0), "axis='z': expected 'y' or 'x'"),
    "not linear": (lambda s: linear(s, lambda x: x[:, 0, :2, 0].square(), [1.0, 2.0], 1.0), "function: not linear"),
    "offset": (lambda s: linear(s, lambda x: x[:, 0, :2, 0] + 1e3, [1.0, 2.0], 1.0), "function: not linear"),
    "operator": (lambda s: linear(s, weighted, [1.0, 2.0, 3.0], 1.0), "function: made [3, 2] of fields [3, C, Y, X]"),
    "no tensor": (lambda s: linear(s, lambda x: 3, [1.0], 1.0), "function: made int of fields"),
    "forward": (
        lambda s: observe(s, "forward", torch.zeros(4, 4), readings=[points(s, "source", [[0, 0]], [1.0])]),
        "readings: forward takes none",
    ),
    "numbers of fields": (
        lambda s: s.reconstruct(
            {"source": torch.zeros(3, 4, 4)}, readings=[points(s, "source", [[0, 0]], [[1.0], [2.0]])]
        ),
        "2 fields or masks of readings beside 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_readings_are_one_line(student: Student, case: str) -> None:
    call, words = WRONG[case]
    assert re.search(re.escape(words), refused(lambda: call(student)))
