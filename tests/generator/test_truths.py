"""Truths and null solutions of a student: what its residual is compared with."""

from __future__ import annotations

import sys

import pytest
import torch

import pidscale
from pidscale.config import UserError
from pidscale.dataset.publish import FIRST_COUNTER
from pidscale.generator.student import Student
from pidscale.pde.base import UNSEEN
from tests.commands import ROOT


@pytest.fixture(scope="module", params=["darcy", "poisson", "burgers", "navier_stokes"])
def student(request: pytest.FixtureRequest) -> Student:
    return pidscale.load_student(ROOT / "students" / request.param)


def test_the_residual_tells_truths_from_null_solutions_of_the_same_inputs(student: Student) -> None:
    truths = student.truths(3, seed=1)
    null = student.null(truths)
    floor, most = student.residual(truths)["l2"], student.residual(null)["l2"]
    assert (floor < 0.1 * most).all() and {values.dtype for values in truths.values()} == {torch.float32}
    inputs = [channel.name for channel in student.pde.channels if channel.role == "input"]
    assert all(torch.equal(null[name], truths[name]) for name in inputs)


def test_they_follow_from_seed_and_number_and_belong_to_no_shard_set(student: Student) -> None:
    name = student.channels[0]
    two = student.truths(2, seed=1)
    assert torch.equal(two[name][:1], student.truths(1, seed=1)[name])
    assert not torch.equal(two[name], student.truths(2, seed=2)[name])
    assert max(FIRST_COUNTER.values()) + 10**8 < UNSEEN


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    student = pidscale.load_student(ROOT / "students" / "darcy")
    with pytest.raises(UserError, match="n=0"):
        student.truths(0)
    with pytest.raises(UserError, match="'pressure' is missing"):
        student.null({"permeability": torch.ones(1, 32, 32)})
    for name in [name for name in sys.modules if name.startswith(("scipy", "pidscale.pde.solve"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match="scipy is missing, which solves"):
        student.truths(1)
