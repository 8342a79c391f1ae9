"""More than one network call for a sample: how many there are, from which state, and by which teacher."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.generator import artifact
from pidscale.generator.card import Card
from pidscale.generator.load import load_student
from pidscale.generator.more_calls import more_calls, several_calls, start_level
from tests.generator.made import write_generator

SPREAD = 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student without its teacher, and one with its teacher in its folder."""
    folder = tmp_path_factory.mktemp("taught")
    write_generator(folder / "teacher", "teacher", seed=1)
    for name in ("alone", "both"):
        write_generator(folder / name, "student", seed=2, teacher=folder / "teacher")
    (folder / "teacher").rename(folder / "both" / "teacher")
    return folder


def test_a_teacher_is_in_its_students_folder_or_named(folder: Path) -> None:
    both = load_student(folder / "both")
    alone = load_student(folder / "alone")
    named = load_student(folder / "alone", teacher=folder / "both" / "teacher")
    assert both.teacher is not None and alone.teacher is None and named.teacher is not None
    name = both.channels[0]
    one = both.sample(3, 5)
    four = both.sample(3, 5, nfe=4)
    assert torch.equal(one[name], alone.sample(3, 5)[name]) and not torch.equal(one[name], four[name])
    assert torch.equal(four[name], named.sample(3, 5, nfe=4)[name])
    torch.testing.assert_close(four[name][:2], both.sample(2, 5, batch=1, nfe=4)[name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(four[name], both.sample(3, 6, nfe=4)[name])


def test_wrong_combinations_are_one_line(folder: Path, tmp_path: Path) -> None:
    alone = load_student(folder / "alone")
    teacher = folder / "both" / "teacher"
    write_generator(tmp_path / "other", "teacher", seed=3)
    for call, words in (
        (lambda: alone.sample(2, nfe=2), "nfe=2: needs the teacher"),
        (lambda: load_student(folder / "both").sample(2, nfe=0), "nfe=0"),
        (lambda: load_student(folder / "alone", teacher=tmp_path / "other"), "not the teacher that"),
        (lambda: load_student(teacher, teacher=teacher), "holds a teacher, expected a student"),
        (lambda: load_student(folder / "alone", teacher=tmp_path / "nowhere"), "nowhere"),
    ):
        with pytest.raises(UserError, match=words) as error:
            call()
        assert "\n" not in str(error.value)


class Exact:
    """The exact denoiser of fields whose points are N(0, SPREAD^2); it records its noise levels."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, x: Tensor, sigma: Tensor, *_: object) -> Tensor:
        self.levels.append(float(sigma[0]))
        return SPREAD**2 / (SPREAD**2 + sigma.reshape(-1, 1, 1, 1) ** 2) * x


@pytest.mark.parametrize("calls", [1, 3, 7])
def test_the_teachers_calls_start_at_the_level_of_the_added_noise(folder: Path, calls: int) -> None:
    student = load_student(folder / "both")
    exact = Exact()
    student = replace(student, teacher=replace(student.teacher, denoiser=exact))  # type: ignore[arg-type, type-var]
    eps = student.eps(range(2), 0)
    again = student.eps(range(2), 1)
    params = torch.zeros(2, len(student.pde.varying))
    found = more_calls(student, student.teacher, eps, again, params, calls)
    assert len(exact.levels) == calls and exact.levels[0] == pytest.approx(start_level(calls))
    assert all(a > b for a, b in zip(exact.levels, exact.levels[1:], strict=False)) and torch.isfinite(found).all()
    if calls == 1:  # the mean of the clean fields given the noisy one
        noisy = student.generate(eps, params) + start_level(1) * again
        torch.testing.assert_close(found, SPREAD**2 / (SPREAD**2 + start_level(1) ** 2) * noisy)


def test_a_student_of_the_flow_keeps_its_noise(folder: Path) -> None:
    """It makes the noisy state itself: its network is conditioned on that level, and no new noise is added."""
    student = load_student(folder / "both")
    exact = Exact()
    network_levels: list[float] = []

    def network(x: Tensor, sigma: Tensor, condition: Tensor, level: Tensor) -> Tensor:
        network_levels.append(float(level[0]))
        return 0.1 * x / student.noise.sigma_max

    card = replace(student.card, network_level=0.002)
    student = replace(student, card=card, denoiser=network, teacher=replace(student.teacher, denoiser=exact))  # type: ignore[arg-type, type-var]
    eps = student.eps(range(2), 0)
    params = torch.zeros(2, len(student.pde.varying))
    found = [more_calls(student, student.teacher, eps, student.eps(range(2), seed), params, 1) for seed in (1, 2)]
    assert torch.equal(*found) and network_levels == pytest.approx([start_level(1)] * 2)
    level = start_level(1)
    state = level * eps + (1 - level / student.noise.sigma_max) * 0.1 * eps
    torch.testing.assert_close(found[0], SPREAD**2 / (SPREAD**2 + level**2) * state)
    assert math.isclose(exact.levels[0], level, rel_tol=1e-6)


def test_the_card_of_a_teacher_in_a_students_folder_is_valid(folder: Path) -> None:
    card = json.loads((folder / "both" / "teacher" / "card.json").read_text())
    assert card["kind"] == "teacher" and artifact.read_plain(folder / "both" / "teacher") == card


def test_a_student_that_was_trained_for_several_calls_makes_the_last_of_them(folder: Path) -> None:
    """k calls take the last k - 1 levels, each with noise of its own; a teacher is not asked."""
    student = load_student(folder / "alone")
    exact = Exact()
    card = replace(student.card, call_levels=(1.0, 0.5, 0.25))
    student = replace(student, card=card, denoiser=exact)  # type: ignore[arg-type]
    name = student.channels[0]
    student.sample(2, nfe=3)
    assert exact.levels == pytest.approx([student.noise.sigma_max, 0.5, 0.25])
    assert not torch.equal(student.sample(2, nfe=3)[name], student.sample(2, seed=1, nfe=3)[name])
    torch.testing.assert_close(student.sample(2, nfe=4)[name], student.sample(2, batch=1, nfe=4)[name])
    eps, params = student.eps(range(2), 0), student.params(range(2), 0)
    again = [student.eps(range(2), seed) for seed in (1, 2)]
    factor = {level: SPREAD**2 / (SPREAD**2 + level**2) for level in (student.noise.sigma_max, 0.5, 0.25)}
    x = factor[student.noise.sigma_max] * student.noise.sigma_max * eps
    for level, noise in zip((0.5, 0.25), again, strict=True):
        x = factor[level] * (x + level * noise)
    torch.testing.assert_close(several_calls(student, eps, again, params), x)
    with pytest.raises(UserError, match="nfe=5: needs the teacher"):
        student.sample(2, nfe=5)


def test_levels_of_calls_are_kept_in_the_card_and_checked(folder: Path) -> None:
    card = load_student(folder / "alone").card
    plain = replace(card, call_levels=(1.0, 0.5)).to_plain()
    assert Card.from_plain(plain, "x").call_levels == (1.0, 0.5) and "call_levels" not in card.to_plain()
    for levels in ([0.5, 1.0], [1.0, 1.0], [1e9], [-1.0], ["a"], 3):
        with pytest.raises(UserError, match="call_levels"):
            Card.from_plain(plain | {"call_levels": levels}, "x")
