"""The second search, over the field itself: its minimum is the documented one, and it corrects what a network cannot make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pidscale.app.files import write_answer
from pidscale.generator.load import load_student
from pidscale.generator.student import FIELD_STEPS, Student
from pidscale.generator.tasks.descend import Minimum
from pidscale.generator.tasks.energy import pose
from pidscale.generator.tasks.field import search_field
from pidscale.generator.tasks.likeliest import Answer, Stage
from pidscale.generator.tasks.observations import observe
from pidscale.generator.tasks.search import Search
from pidscale.pde import build_pde
from pidscale.pde.base import Samples
from pidscale.pde.base import truths as truths_of
from tests.generator.known import refused
from tests.generator.linear import gaussian_posterior, linear_student
from tests.generator.made import POINTS, write_generator

SIGMA = {"source": 0.3, "solution": 0.002}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return load_student(write_generator(tmp_path_factory.mktemp("made") / "student"))


@pytest.fixture(scope="module")
def truths() -> Samples:
    pde = build_pde("darcy")
    made = truths_of(pde, 3, range(2), pde.grid(POINTS))
    return Samples(made.fields.float(), made.params)


def joint(student: Student, answer: Answer) -> Tensor:
    return torch.stack([answer.fields[name] for name in student.channels], dim=1)


def some_of(student: Student, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Values of a student's own fields, masks that know half of them, and the masks as one tensor."""
    values = student.sample(count, seed=7)
    known = torch.rand(count, 2, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    return values, {name: known[:, c] for c, name in enumerate(student.channels)}, known


@pytest.mark.parametrize("prior", [0.3, 30.0])
def test_without_the_equation_known_points_move_by_their_noise_and_the_prior_and_others_stay(prior: float) -> None:
    student = linear_student("poisson")
    values, mask, known = some_of(student, 3)
    how = {"physics": 0.0, "steps": 300, "starts": 2, "field_steps": 200, "field_prior": prior, "field_physics": 0.0}
    answer = student.reconstruct(values, mask, SIGMA, **how)
    assert answer.first is not None
    before = joint(student, answer.first)
    std = torch.tensor(student.normaliser.std).reshape(1, -1, 1, 1) / 0.5  # of the model's unit
    sigma = torch.tensor([*SIGMA.values()]).reshape(1, -1, 1, 1)
    share = sigma.square() / (sigma.square() + std.square() / prior)  # that the first answer keeps
    seen = torch.stack([values[name] for name in student.channels], dim=1)
    wanted = torch.where(known, share * before + (1 - share) * seen, before)
    assert ((joint(student, answer) - wanted).abs() < 1e-3 * std).all()
    assert ((wanted - before).abs() > 5e-3 * std).any()  # so the line above can fail
    assert (answer.energy <= answer.first.energy).all() and (answer.mismatch < answer.first.mismatch).all()


def test_a_firm_prior_leaves_the_posterior_mean_of_a_linear_student() -> None:
    student = linear_student("poisson")
    values, mask, known = some_of(student, 2)
    how = {"physics": 0.0, "steps": 300, "field_steps": 50, "field_prior": 1e8, "field_physics": 0.0}
    answer = student.reconstruct(values, mask, SIGMA, **how)
    seen = torch.stack([values[name] for name in student.channels], dim=1)
    noise = torch.tensor([*SIGMA.values()])[:, None, None]
    for i, found in enumerate(joint(student, answer)):
        mean, covariance = gaussian_posterior(student, seen[i], known[i], noise)
        assert ((found.flatten() - mean).abs() < 0.02 * covariance.diagonal().sqrt() + 1e-4 * mean.abs()).all()


def test_a_whole_channel_that_the_student_cannot_make_is_met_as_its_noise_goes_to_zero(
    student: Student, truths: Samples
) -> None:
    pressure = truths.fields[:, 1]
    misses = []
    for sigma in (1e-3, 1e-4, 1e-5):
        how = {"sigma": sigma, "steps": 20, "starts": 1, "field_steps": 100, "field_physics": 0.0}
        answer = student.inverse(pressure, **how)
        assert answer.first is not None
        misses.append(float((answer.fields["pressure"] - pressure).abs().max()))
        assert misses[-1] < float((answer.first.fields["pressure"] - pressure).abs().max())
    assert misses[0] > 10 * misses[1] and misses[1] > 10 * misses[2] and misses[2] < 1e-6


def test_the_equation_is_obeyed_more_closely_than_by_the_network(student: Student, truths: Samples) -> None:
    how = {"steps": 20, "starts": 1, "field_steps": 200, "field_prior": 0.01}
    answer = student.with_head(0).forward(truths.fields[:, 0], **how)
    assert answer.first is not None
    for term in ("l2", "dual"):
        assert (answer.residual[term] < 0.2 * answer.first.residual[term]).all(), term
    own = student.residual(answer.fields)
    torch.testing.assert_close(own["dual"], answer.residual["dual"], rtol=1e-3, atol=1e-5)


def test_the_answer_of_the_first_search_is_that_without_a_second(student: Student, truths: Samples) -> None:
    how = {"steps": 8, "starts": 2}
    alone = student.inverse(truths.fields[:, 1], **how, field_steps=0)
    both = student.inverse(truths.fields[:, 1], **how, field_steps=5)
    assert alone.first is None and (alone.field_calls == 0).all() and both.first is not None
    for name in student.channels:
        assert torch.equal(both.first.fields[name], alone.fields[name])
    assert torch.equal(both.eps, alone.eps) and torch.equal(both.calls, alone.calls)
    assert (both.field_calls >= 1).all() and (both.field_calls <= 5).all()
    one = student.inverse(truths.fields[:1, 1], **how, field_steps=5)
    torch.testing.assert_close(one.fields["permeability"], both.fields["permeability"][:1], rtol=1e-4, atol=1e-4)


def test_the_likeliest_field_has_a_second_search_and_posterior_samples_have_none(
    student: Student, truths: Samples
) -> None:
    how = {"steps": 2, "starts": 1}
    answer = student.inverse(truths.fields[:, 1], **how)
    assert answer.stage is Stage.FIELD and (answer.field_calls <= FIELD_STEPS).all() and (answer.field_calls > 50).any()
    drawn = student.posterior("inverse", truths.fields[:1, 1], count=2, sigma=1e-4, steps=2)
    assert (drawn.field_calls == 0).all()


def test_a_second_search_takes_no_solver_steps(student: Student, truths: Samples) -> None:
    headed = student.with_head(3)
    answer = headed.inverse(truths.fields[:, 1], steps=2, starts=1, field_steps=0)
    fields, vectors = joint(student, answer), Minimum(answer.eps.flatten(1), answer.energy, answer.calls)
    search = Search(field_steps=4)
    found = []
    for one in (student.with_head(0), headed):
        task = pose(one, observe(one, "inverse", truths.fields[:, 1]), None, 1.0)
        found.append(search_field(one, task, vectors, fields, search)[1])
    assert torch.equal(found[0].x_BD, found[1].x_BD) and torch.equal(found[0].energy_B, found[1].energy_B)


def test_progress_says_which_search_it_is(student: Student, truths: Samples) -> None:
    said: list[tuple[int, int, str]] = []
    how = {"steps": 2, "starts": 1, "field_steps": 3, "progress": lambda *now: said.append(now)}
    student.inverse(truths.fields[:, 1], **how)
    assert [(done, total, note.split(",")[0].split()[0]) for done, total, note in said] == [
        (1, 2, "energy"),
        (2, 2, "energy"),
        (1, 3, "over"),
        (2, 3, "over"),
        (3, 3, "over"),
    ]


def test_a_parameter_that_is_searched_for_moves_too(tmp_path: Path) -> None:
    heat = load_student(write_generator(tmp_path / "heat", equation="heat"))
    truth = truths_of(heat.pde, 1, range(1), heat.grid)
    values = {name: truth.fields[:, c].float() for c, name in enumerate(heat.channels)}
    answer = heat.reconstruct(values, steps=5, starts=1, field_steps=60)
    assert answer.first is not None
    wanted = float(truth.params[0, 0])
    before, after = (abs(float(one.fields["diffusivity"][0]) - wanted) for one in (answer.first, answer))
    assert after < before
    given = heat.reconstruct(values, params={"diffusivity": 0.003}, steps=5, starts=1, field_steps=5)
    assert float(given.fields["diffusivity"][0]) == pytest.approx(0.003)


def test_the_file_of_an_answer_has_both(student: Student, truths: Samples, tmp_path: Path) -> None:
    answer = student.inverse(truths.fields[:, 1], steps=3, starts=1, field_steps=3)
    write_answer(tmp_path / "answer.npz", "darcy", answer)
    assert answer.first is not None
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        assert np.array_equal(file["pressure"], answer.fields["pressure"].numpy())
        assert np.array_equal(file["first/pressure"], answer.first.fields["pressure"].numpy())
        assert np.array_equal(file["first/residual/l2"], answer.first.residual["l2"].numpy())
        assert "figures/first" not in file.files and "first/figures/first" not in file.files


@pytest.mark.parametrize(
    ("setting", "value"), [("field_steps", -1), ("field_steps", 1.5), ("field_prior", -0.1), ("field_physics", -1)]
)
def test_settings_out_of_range_are_named(student: Student, setting: str, value: float) -> None:
    line = refused(lambda: student.inverse(np.zeros((POINTS, POINTS)), **{setting: value}))
    assert setting in line
