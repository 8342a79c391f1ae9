"""Forward, inverse and reconstruction: the energy is the documented one, and its minimum is found."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from pidscale.config import UserError
from pidscale.generator.load import load_student
from pidscale.generator.scales import residual_scales
from pidscale.generator.student import Student
from pidscale.generator.tasks.likeliest import Answer
from pidscale.generator.tasks.observations import TOLERANCE, observe
from pidscale.generator.tasks.search import Search, search_from
from pidscale.pde.residuals import residual_squares
from tests.generator.linear import gaussian_posterior, linear_student
from tests.generator.made import POINTS, write_generator


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return load_student(write_generator(tmp_path_factory.mktemp("made") / "student"))


@pytest.fixture(scope="module")
def heat(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return load_student(write_generator(tmp_path_factory.mktemp("made") / "heat", equation="heat"))


def energy_by_hand(student: Student, answer: Answer, values, known, sigma, inserted: bool, physics: float) -> float:
    """Return the energy of one answer from its noise, term by term in float64. inserted: known values in the residual."""
    eps = answer.eps
    fields = student.differentiable(eps, torch.zeros(1, 0)).double()
    away = ((fields - values) / torch.tensor(sigma).reshape(1, -1, 1, 1))[known]
    held = torch.where(known, values.double(), fields) if inserted else fields
    squares = residual_squares(student.pde, student.grid, held)
    scales = residual_scales(student)
    physical = sum(float(squares[k]) / scales[k] for k in scales)
    return 0.5 * (float(away.square().sum()) + physics * eps.numel() * physical + float(eps.square().sum()))


def test_a_known_channel_replaces_the_generated_one_in_the_residual(student: Student) -> None:
    inputs = student.sample(1, seed=9)["permeability"]
    answer = student.forward(inputs, steps=3, field_steps=0, starts=1, physics=50.0)
    values = torch.zeros(1, 2, POINTS, POINTS)
    known = torch.zeros(1, 2, POINTS, POINTS, dtype=torch.bool)
    values[:, 0] = inputs
    known[:, 0] = True
    sigma = [TOLERANCE * s for s in student.normaliser.std]
    wanted = energy_by_hand(student, answer, values, known, sigma, True, 50.0)
    assert float(answer.energy) == pytest.approx(wanted, rel=1e-4)
    generated = energy_by_hand(student, answer, values, known, sigma, False, 50.0)
    assert abs(generated - wanted) > 2e-3 * wanted  # so the line above can fail
    # a channel with noise does not replace the generated one
    noisy = student.forward(inputs, sigma={"permeability": sigma[0]}, steps=3, field_steps=0, starts=1, physics=50.0)
    wanted = energy_by_hand(student, noisy, values, known, sigma, False, 50.0)
    assert float(noisy.energy) == pytest.approx(wanted, rel=1e-4)


def test_scattered_points_do_not_replace_generated_values_in_the_residual(student: Student) -> None:
    fields = student.sample(1, seed=9)
    values = torch.stack([*fields.values()], dim=1)
    known = torch.rand(1, 2, POINTS, POINTS, generator=torch.Generator().manual_seed(0)) < 0.2
    mask = {name: known[:, c] for c, name in enumerate(student.channels)}
    answer = student.reconstruct(fields, mask, sigma=0.01, steps=3, field_steps=0, starts=1)
    assert "mismatch=" in repr(answer) and len(repr(answer)) < 500  # a prompt shows figures, no fields
    wanted = energy_by_hand(student, answer, values, known, [0.01, 0.01], False, 1.0)
    assert float(answer.energy) == pytest.approx(wanted, rel=1e-4)


def test_the_answer_is_the_students_own_field(student: Student) -> None:
    inputs = student.sample(2, seed=9)["permeability"]
    answer = student.forward(inputs, steps=5, field_steps=0, starts=2)
    own = student.differentiable(answer.eps, torch.zeros(2, 0))
    for c, name in enumerate(student.channels):
        torch.testing.assert_close(answer.fields[name], own[:, c])
    assert (answer.fields["permeability"] - inputs).abs().max() > 1e-3  # so known values are not inserted
    sigma = TOLERANCE * student.normaliser.std[0]
    away = (answer.fields["permeability"] - inputs).square().flatten(1).mean(dim=1).sqrt() / sigma
    torch.testing.assert_close(answer.mismatch, away)
    for name, value in student.residual(answer.fields).items():
        torch.testing.assert_close(answer.residual[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["forward", "inverse", "reconstruct"])
def test_known_values_are_met(student: Student, task: str) -> None:
    """Values that the student can make are met to within their noise, from starts that are far from them."""
    truth = student.sample(2, seed=9)
    known = {"forward": ["permeability"], "inverse": ["pressure"], "reconstruct": list(truth)}[task]
    values = {name: truth[name].clone() for name in known}
    if task == "reconstruct":
        for field in values.values():
            field[:, :, 4:12] = torch.nan
    how = {"steps": 60, "starts": 2, "physics": 0.0, "field_steps": 0}
    answers = [getattr(student, task)(values, **how | {"steps": steps}) for steps in (1, 60)]
    assert (answers[0].mismatch > 4).all() and (answers[1].mismatch < 1).all()
    assert (answers[1].calls <= 120).all() and (answers[1].energy < 0.3 * answers[0].energy).all()


def test_the_likeliest_field_of_a_linear_student_is_the_posterior_mean() -> None:
    student = linear_student("poisson")
    values = student.sample(3, seed=7)
    known = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    mask = {name: known[:, c] for c, name in enumerate(student.channels)}
    sigma = {"source": 0.3, "solution": 0.002}
    answer = student.reconstruct(values, mask, sigma, physics=0.0, steps=300, field_steps=0, starts=2)
    joint = torch.stack([*values.values()], dim=1)
    noise = torch.tensor([*sigma.values()])[:, None, None]
    for i in range(3):
        mean, covariance = gaussian_posterior(student, joint[i], known[i], noise)
        found = torch.stack([answer.fields[name][i] for name in student.channels]).flatten().double()
        assert ((found - mean).abs() < 0.02 * covariance.diagonal().sqrt() + 1e-4 * mean.abs()).all()


def test_the_best_of_several_starts_is_kept(student: Student) -> None:
    inputs = student.sample(2, seed=4)["pressure"]
    one, three = (student.inverse(inputs, steps=6, field_steps=0, starts=starts) for starts in (1, 3))
    assert (three.energy <= one.energy * 1.0001).all() and (three.energy < 0.999 * one.energy).any()
    assert three.calls.tolist() == [18, 18]


def test_an_answer_does_not_depend_on_neighbours_or_batch(student: Student) -> None:
    inputs = student.sample(3, seed=4)["pressure"]
    three = student.inverse(inputs, steps=6, field_steps=0, starts=2)
    for other in (
        student.inverse(inputs[:2], steps=6, field_steps=0, starts=2),
        student.inverse(inputs, steps=6, field_steps=0, starts=2, batch=4),
    ):
        count = len(other.energy)
        torch.testing.assert_close(other.energy, three.energy[:count], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(other.eps, three.eps[:count], rtol=1e-2, atol=1e-2)
    assert not torch.allclose(
        student.inverse(inputs, steps=6, field_steps=0, starts=2, seed=1).eps, three.eps, atol=1e-2
    )
    twice = student.inverse(inputs[[0, 0]], steps=1, field_steps=0, starts=1).eps
    assert (twice[0] - twice[1]).square().mean() > 1  # each observation has its own draws


def test_a_parameter_that_is_given_is_kept(heat: Student) -> None:
    drawn = heat.sample(1, seed=2)
    answer = heat.forward(drawn["temperature_00"], params={"diffusivity": 0.003}, steps=4, field_steps=0, starts=2)
    assert answer.fields["diffusivity"].tolist() == pytest.approx([0.003])
    own = heat.differentiable(answer.eps, torch.tensor([[0.003]]))
    torch.testing.assert_close(answer.fields["temperature_10"], own[:, 10])
    for name, value in heat.residual(answer.fields).items():
        torch.testing.assert_close(answer.residual[name], value, rtol=1e-3, atol=1e-6)


def test_a_parameter_that_is_not_known_is_found() -> None:
    """The fields of this student depend on the parameter alone, which therefore follows from them."""
    student = linear_student("heat", frames=4)
    low, high = student.pde.varying["diffusivity"]
    wanted = torch.tensor([low + 0.2 * (high - low), low + 0.9 * (high - low)])
    student.denoiser.matrix *= 0.01
    values = student.differentiable(torch.zeros(2, 4, 4, 4), wanted[:, None].double())
    answer = student.reconstruct(values, physics=0.0, steps=100, field_steps=0, starts=2)
    assert ((answer.fields["diffusivity"] - wanted).abs() < 0.02 * (high - low)).all()
    given = student.reconstruct(
        values, params={"diffusivity": float(wanted[0])}, physics=0.0, steps=100, field_steps=0, starts=2
    )
    assert given.energy[1] > 10 * answer.energy[1] and given.fields["diffusivity"][1] == pytest.approx(float(wanted[0]))


def test_rows_of_a_channel_can_be_the_input(tmp_path: Path) -> None:
    """In Burgers' equation the first row is the input and all others are the solution."""
    student = load_student(write_generator(tmp_path / "burgers", equation="burgers"))
    truth = student.sample(1, seed=3)["velocity"]
    first = truth.clone()
    rest = truth.clone()
    first[:, 1:] = torch.nan
    rest[:, 0] = torch.nan
    assert observe(student, "forward", first).known_NCYX.sum() == POINTS
    assert observe(student, "inverse", rest).known_NCYX.sum() == POINTS * (POINTS - 1)
    answers = [student.forward(first, steps=steps, field_steps=0, starts=1, physics=0.0) for steps in (1, 60)]
    assert answers[1].mismatch < 0.2 * answers[0].mismatch


def test_physics_lowers_the_residual(student: Student) -> None:
    inputs = student.sample(2, seed=4)["permeability"]
    without, with_it = (student.forward(inputs, steps=40, field_steps=0, starts=1, physics=p) for p in (0.0, 30.0))
    assert (with_it.residual["l2"] < without.residual["l2"]).all()


def test_progress_counts_every_batch(student: Student) -> None:
    reports: list[tuple[int, int]] = []
    inputs = np.zeros((3, POINTS, POINTS)) + 7
    student.forward(
        inputs,
        steps=2,
        field_steps=0,
        starts=1,
        batch=2,
        progress=lambda done, total, note: reports.append((done, total)),
    )
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_mistakes_are_one_line(student: Student) -> None:
    a = torch.full((POINTS, POINTS), 7.0)
    for call, part in (
        (lambda: student.forward(a, step=5), "step: a search has no such setting; it has steps, starts"),
        (lambda: student.forward(a, steps=0), "steps=0"),
        (lambda: student.forward(a, starts=2.5), "starts=2.5"),
        (lambda: student.forward(a, physics=-1), "physics=-1"),
        (lambda: student.forward(a, batch=0), "batch=0"),
        (lambda: student.forward(a, optimiser="newton"), "optimiser='newton'"),
        (lambda: student.forward(a, params={"k": 1.0}), "params['k']"),
        (lambda: student.forward(1e37 * a), "too far from what the student makes"),
    ):
        with pytest.raises(UserError) as raised, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
        assert part in str(raised.value) and "\n" not in str(raised.value)


def test_values_outside_the_training_data_are_a_python_warning(student: Student) -> None:
    far = torch.full((POINTS, POINTS), 7e3)
    with pytest.warns(UserWarning, match=r"permeability: 256 of 256 known values .* the answer extrapolates") as caught:
        student.forward(far, steps=2, starts=1)
        student.posterior("forward", far, count=2, steps=2)
    assert [one.filename for one in caught] == [__file__, __file__]


def test_a_search_is_built_from_settings_by_name() -> None:
    assert search_from({"steps": 7}, physics=0.0) == Search(steps=7, physics=0.0, progress=Search().progress)
    assert search_from({"physics": 3}, physics=0.0).physics == 3
    assert math.isclose(Search().physics, 1.0)


def test_inference_mode_is_refused_where_gradients_are_needed(student: Student) -> None:
    with torch.inference_mode(), pytest.raises(UserError, match=r"inference_mode\(\) is on"):
        student.differentiable(student.eps(range(1), 0), torch.zeros(1, 0))
