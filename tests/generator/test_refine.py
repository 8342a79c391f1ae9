"""Refinement lowers the residual near the drawn sample, and finds the minimum where that has a closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pidscale.config import UserError
from pidscale.generator.card import Metrics, Provenance
from pidscale.generator.load import load_student
from pidscale.generator.scales import residual_floor, residual_scales
from pidscale.generator.student import Student
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS
from tests.generator.linear import affine, linear_student
from tests.generator.made import write_generator


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return load_student(write_generator(tmp_path_factory.mktemp("made") / "student"))


def test_the_residual_falls_and_the_sample_stays_near(student: Student) -> None:
    found = student.refine(4, seed=3, steps=25)
    plain = student.sample(4, seed=3)
    for name, value in student.residual(plain).items():
        torch.testing.assert_close(found.before[name], value)
    for name, value in student.residual(found.fields).items():
        torch.testing.assert_close(found.after[name], value, rtol=1e-4, atol=1e-5)
    scales = residual_scales(student)
    costs = [sum(r[k].square() / scales[k] for k in NORMS) for r in (found.before, found.after)]
    assert (costs[1] < 0.7 * costs[0]).all()
    assert (found.moved > 1e-3).all() and (found.moved < 1.0).all()
    away = (found.eps - student.eps(range(4), 3)).square().flatten(1).mean(dim=1).sqrt()
    torch.testing.assert_close(found.moved, away)
    apart = [(found.fields[c] - plain[c]) / s for c, s in zip(student.channels, student.normaliser.std, strict=True)]
    torch.testing.assert_close(
        found.changed, torch.stack(apart, dim=1).square().flatten(1).mean(dim=1).sqrt(), rtol=1e-3, atol=1e-5
    )
    assert (found.changed < 0.5).all()
    torch.testing.assert_close(found.size, found.eps.square().flatten(1).mean(dim=1).sqrt())
    assert (found.size - 1).abs().max() < 0.3 and (found.calls <= 25).all()
    ratio = found.fields["pressure"].var(dim=0).sum() / plain["pressure"].var(dim=0).sum()
    assert found.variance["pressure"] == pytest.approx(float(ratio), rel=1e-3)


def test_one_evaluation_does_not_change_a_sample(student: Student) -> None:
    found = student.refine(3, seed=5, steps=1, batch=2)
    plain = student.sample(3, seed=5)
    for name, fields in plain.items():
        torch.testing.assert_close(found.fields[name], fields)
    assert found.moved.max() == 0 and found.calls.tolist() == [1, 1, 1]


def test_a_larger_tau_lets_a_sample_move_further(student: Student) -> None:
    close, far = (student.refine(3, steps=40, tau=tau) for tau in (0.02, 2.0))
    assert (close.moved < 0.5 * far.moved).all() and (close.changed < 0.5 * far.changed).all()
    assert (close.after["l2"] > far.after["l2"]).all()


def test_the_minimum_of_a_linear_student_is_found() -> None:
    """The residual of Poisson's equation is linear in eps, so the energy is quadratic and its minimum a linear solve."""
    student = linear_student("poisson")
    tau = 0.7
    scales = residual_scales(student)
    eps0 = student.eps(range(2), 1)
    found = student.refine(2, seed=1, steps=400, tau=tau)
    matrix, offset = affine(student)
    std = torch.tensor(student.normaliser.std, dtype=torch.float64).repeat_interleave(16)
    for i in range(2):

        def energy(flat: torch.Tensor, i: int = i) -> torch.Tensor:
            eps = flat.reshape(1, *eps0.shape[1:])
            # through the map in float64, which is more precise than the result compared with it
            fields = eps.flatten(1) @ matrix.T + offset
            squares = residual_squares(student.pde, student.grid, fields.reshape(eps.shape), torch.zeros(1, 0))
            away = flat - eps0[i].flatten().double()
            near = away.square().mean() + (matrix @ away / std).square().mean()
            return sum(squares[k][0] / scales[k] for k in NORMS) + near / tau**2

        zero = torch.zeros(eps0[i].numel(), dtype=torch.float64)
        slope = torch.autograd.functional.jacobian(energy, zero)
        least = -torch.linalg.solve(torch.autograd.functional.hessian(energy, zero), slope)
        assert energy(found.eps[i].flatten().double()) == pytest.approx(float(energy(least)), rel=1e-4)
        assert (found.eps[i].flatten() - least).norm() < 0.03 * (least - eps0[i].flatten()).norm()


def with_card(student: Student, **changes: object) -> Student:
    """Return the student with changes to its card."""
    return replace(student, card=replace(student.card, **changes))  # type: ignore[arg-type]


def test_a_sample_at_the_floor_is_not_changed(student: Student) -> None:
    before = student.refine(3, steps=1).before["l2"]
    floor = float(before.sort().values[1]) * 1.0001  # one sample is below it, one just below, one above
    found = student.refine(3, steps=30, floor=floor)
    assert torch.equal(found.moved == 0, before <= floor)
    for recorded, wanted in ((0.25, 0.25), (None, 0.01), (0.0, 0.01)):
        assert residual_floor(with_card(student, provenance=Provenance(residual_floor=recorded))) == wanted
    measured = with_card(student, metrics=Metrics(report={"residual_floor": 0.25}))
    assert residual_floor(measured) == 0.01 == residual_floor(student)


def test_scales_are_those_of_the_card_or_measured(student: Student) -> None:
    own = residual_scales(student)
    assert set(own) == set(NORMS) and all(v >= 1e-4 for v in own.values())
    known = {"l2": 2.0, "dual": 0.5, "boundary": 0.01}
    assert residual_scales(with_card(student, provenance=Provenance(scales=known))) == known
    assert residual_scales(with_card(student, provenance=Provenance(scales={"l2": 1.0}))) == own


def test_a_sample_does_not_depend_on_neighbours_or_batch(student: Student) -> None:
    three = student.refine(3, seed=2, steps=8)
    for other in (student.refine(2, seed=2, steps=8), student.refine(3, seed=2, steps=8, batch=1)):
        count = len(other.moved)
        torch.testing.assert_close(other.eps, three.eps[:count], rtol=1e-3, atol=1e-3)


def test_refinement_keeps_the_parameters_of_a_sample(tmp_path: Path) -> None:
    student = load_student(write_generator(tmp_path / "heat", equation="heat"))
    found = student.refine(2, seed=1, steps=6)
    drawn = student.sample(2, seed=1)
    assert torch.equal(found.fields["diffusivity"], drawn["diffusivity"])
    assert (found.after["l2"] < found.before["l2"]).all()
    given = student.refine(2, seed=1, steps=6, params={"diffusivity": 0.002})
    assert (given.fields["diffusivity"] == 0.002).all() and not torch.equal(given.before["l2"], found.before["l2"])


def test_refined_samples_satisfy_the_constraints(tmp_path: Path) -> None:
    plain = load_student(write_generator(tmp_path / "student"))
    held = with_card(plain, constraints=("zero_edge",))
    found = held.refine(2, steps=10)
    assert found.after["boundary"].max() == 0 and found.fields["pressure"][:, 0].abs().max() == 0
    assert (found.after["l2"] < found.before["l2"]).all()


def test_progress_counts_every_batch(student: Student) -> None:
    reports: list[tuple[int, int]] = []
    student.refine(3, steps=4, batch=2, progress=lambda done, total, note: reports.append((done, total)))
    assert reports[0] == (1, 8) and reports[-1] == (8, 8) and [d for d, _ in reports] == list(range(1, 9))


def test_mistakes_are_one_line(student: Student) -> None:
    for call, part in (
        (lambda: student.refine(0), "n=0"),
        (lambda: student.refine(10**20), "n=100000000000000000000: expected a whole number from 1 to"),
        (lambda: student.refine(1, steps=0), "steps=0"),
        (lambda: student.refine(1, tau=0.0), "tau=0.0: expected a finite number above 0"),
        (lambda: student.refine(1, tau=1e300), "tau=1e+300: expected a number of 1e+30 or less"),
        (lambda: student.refine(1, tau=float("nan")), "tau=nan"),
        (lambda: student.refine(1, floor="a"), "floor='a'"),
        (lambda: student.refine(1, optimiser="sgd"), "optimiser='sgd'"),
        (lambda: student.refine(1, params={"nu": 1}), "params['nu']"),
    ):
        with pytest.raises(UserError) as raised:
            call()
        assert part in str(raised.value) and "\n" not in str(raised.value)
