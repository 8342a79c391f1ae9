"""Solver steps behind a generator: its samples, refinements and answers obey the equation more closely."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pidscale.config import UserError
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator.load import load_student, load_teacher
from pidscale.generator.student import Student
from pidscale.pde.head import correct
from tests.generator.made import write_generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("head")


@pytest.fixture(scope="module")
def student(folder: Path) -> Student:
    units = Normaliser((7.5, 0.005), (1.0, 0.004))  # a permeability that stays above 0
    teacher = write_generator(folder / "teacher", "teacher", normaliser=units)
    student = write_generator(folder / "student", teacher=teacher, normaliser=units)
    return load_student(student, teacher=teacher)


def test_samples_are_those_of_the_network_with_corrected_solutions(student: Student) -> None:
    plain = student.sample(5, seed=2)
    headed = student.sample(5, seed=2, head=4)
    assert torch.equal(headed["permeability"], plain["permeability"])
    wanted = correct(student.pde, student.grid, student.join(plain), steps=4)
    torch.testing.assert_close(headed["pressure"], wanted[:, 1], rtol=1e-5, atol=1e-9)
    before, after = student.residual(plain), student.residual(headed)
    assert (after["dual"] < 0.1 * before["dual"]).all() and after["boundary"].max() == 0
    assert torch.equal(student.with_head(4).sample(5, seed=2)["pressure"], headed["pressure"])
    assert torch.equal(student.with_head(4).sample(5, seed=2, head=0)["pressure"], plain["pressure"])
    assert student.head == 0  # with_head returns another one


def test_phases_go_with_the_head_and_not_with_a_search(student: Student) -> None:
    """A search needs an energy whose gradient is its own, so its fields keep values between the phases."""
    phased = replace(student, card=replace(student.card, constraints=("two_phase",)))
    bare, plain = phased.sample(5, seed=2), student.sample(5, seed=2)
    assert torch.equal(bare["permeability"], plain["permeability"]) and phased.steps_apart and not student.steps_apart
    headed = phased.sample(5, seed=2, head=4)
    wanted = torch.where(plain["permeability"] > 7.5, 12.0, 3.0)
    assert torch.equal(headed["permeability"], wanted)
    joint = torch.stack([wanted, plain["pressure"]], dim=1)
    torch.testing.assert_close(headed["pressure"], correct(student.pde, student.grid, joint, steps=4)[:, 1])
    eps, params = student.eps(range(2), 0), student.params(range(2), 0)
    searched = phased.with_head(4).differentiable(eps, params)
    assert torch.equal(searched, student.with_head(4).differentiable(eps, params))
    module = phased.with_head(4).module()
    assert torch.equal(module(eps, params)[:, 0], torch.where(searched[:, 0] > 7.5, 12.0, 3.0))


def test_inputs_that_no_solver_takes_are_counted_and_warned_of(tmp_path: Path, student: Student) -> None:
    low = load_student(write_generator(tmp_path / "low", normaliser=Normaliser((1.0, 0.005), (2.0, 0.004))))
    plain = low.sample(3, seed=4)
    floor = 0.3
    count = int((plain["permeability"] < floor).sum())
    assert count > 0
    with pytest.warns(UserWarning, match=rf"^permeability: {count} values in \d of 3 samples lie outside") as caught:
        headed = low.sample(3, seed=4, head=3)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert torch.equal(headed["permeability"], plain["permeability"])  # for the steps alone
    with pytest.warns(UserWarning, match="what a solver of darcy takes; the head's 2 steps") as caught:
        low.with_head(2).inverse(plain["pressure"], steps=2, starts=1)
    assert caught[-1].filename == __file__
    for draw in (
        lambda: low.with_head(2).posterior("inverse", plain["pressure"], 2, steps=2),
        lambda: low.with_head(2).refine(3, seed=4, steps=2),
    ):
        with pytest.warns(UserWarning, match="what a solver of darcy takes") as caught:
            draw()
        assert caught[-1].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student.sample(3, head=3)
        low.sample(3)


def test_teachers_and_further_calls_take_steps_too(tmp_path: Path) -> None:
    path = write_generator(tmp_path / "teacher", "teacher", equation="poisson")
    teacher = load_teacher(path)
    student = load_student(write_generator(tmp_path / "student", equation="poisson", teacher=path), teacher=path)
    for draw in (
        lambda head: teacher.sample(3, seed=1, steps=2, head=head),
        lambda head: student.sample(3, seed=1, nfe=2, head=head),
    ):
        before, after = (student.residual(draw(head))["dual"] for head in (0, 4))
        assert (after < 1e-4 * before).all()


def test_refinement_and_tasks_search_through_the_steps(student: Student) -> None:
    headed = student.with_head(3)
    found = headed.refine(2, seed=3, steps=4)
    for name, values in headed.residual(headed.sample(2, seed=3)).items():
        torch.testing.assert_close(found.before[name], values, rtol=1e-4, atol=1e-7)
    known = student.sample(2, seed=9, head=8)["pressure"]
    plain, answer = (one.inverse(known, steps=6, starts=1) for one in (student, headed))
    residuals = [one.residual["dual"].square().mean().sqrt() for one in (plain, answer)]
    assert residuals[1] < 0.2 * residuals[0]


def test_every_equation_takes_steps(tmp_path: Path) -> None:
    for name in ("heat", "burgers"):
        student = load_student(write_generator(tmp_path / name, equation=name))
        before, after = (student.residual(student.sample(2, head=head))["dual"] for head in (0, 2))
        assert (after < before).all()


def test_steps_out_of_range_are_refused(student: Student) -> None:
    for head in (-1, 65, 1.5, "four", True):
        with pytest.raises(UserError, match=rf"^head={head!r}: expected a whole number from 0 to 64$"):
            student.sample(1, head=head)  # type: ignore[arg-type]
