"""Start networks: what they learn, where a search starts then, their files, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pidscale.app.main import main
from pidscale.config import UserError
from pidscale.generator import artifact
from pidscale.generator.load import load_student
from pidscale.generator.student import STARTED_STEPS, Student
from pidscale.generator.tasks.energy import pose
from pidscale.generator.tasks.learn_start import Learning, _lesson, learn_start
from pidscale.generator.tasks.observations import observe
from pidscale.generator.tasks.readings import points
from pidscale.generator.tasks.start import FOLDER, StartCard, StartNetwork, guess, write_start
from pidscale.pde.base import solution_mask
from tests.generator.linear import affine, linear_student
from tests.generator.made import POINTS, write_generator

BRIEF = Learning(steps=60, batch=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's folder with its start network."""
    path = write_generator(tmp_path_factory.mktemp("made") / "student")
    write_start(path, learn_start(load_student(path), BRIEF))
    return path


@pytest.fixture(scope="module")
def student(folder: Path) -> Student:
    return load_student(folder)


def of(student: Student) -> StartNetwork:
    assert student.start is not None
    return student.start


def test_its_fields_are_nearer_than_the_middle_of_the_students_law(student: Student) -> None:
    """On samples that it has not learnt from; the card states the same error."""
    lesson = _lesson(student, 99, range(64))
    eps = guess(student, of(student).network, lesson.seen_BCYX, lesson.known_BCYX, lesson.given_BP)
    distances = []
    for noise in (eps, torch.zeros_like(eps)):
        found = student.normaliser.encode(student.differentiable(noise, lesson.params_BP))
        distances.append(float(((found - lesson.x_BCYX) * ~lesson.known_BCYX).square().mean().sqrt()))
    assert distances[0] < 0.95 * distances[1]
    hidden = float((lesson.x_BCYX * ~lesson.known_BCYX).square().mean().sqrt())
    assert of(student).card.error == pytest.approx(distances[0] / hidden, rel=0.15)


def test_lessons_have_tasks_of_all_kinds_and_depend_on_their_counters_only(student: Student) -> None:
    lesson = _lesson(student, 3, range(200))
    solution = solution_mask(student.pde, student.grid)
    kinds = {"forward": ~solution, "inverse": solution}
    counts = {name: int((lesson.known_BCYX == mask).all(dim=(1, 2, 3)).sum()) for name, mask in kinds.items()}
    assert all(8 < count < 36 for count in counts.values()), counts
    shares = lesson.known_BCYX[:, 0].float().mean(dim=(1, 2))
    assert ((shares > 0) & (shares < 0.02)).sum() > 20 and ((shares > 0.1) & (shares < 0.25)).sum() > 20
    part = _lesson(student, 3, range(7, 9))
    for name in ("x_BCYX", "seen_BCYX", "known_BCYX"):
        torch.testing.assert_close(getattr(part, name), getattr(lesson, name)[7:9], rtol=1e-4, atol=1e-4)
    noise = (lesson.seen_BCYX - lesson.x_BCYX).flatten(1).std(dim=1)
    assert float(noise.min()) < 1e-3 and 0.03 < float(noise.max()) < 0.06


def test_it_is_learnt_to_the_same_bits(folder: Path, student: Student) -> None:
    again = learn_start(load_student(folder), BRIEF)
    for name, values in again.network.state_dict().items():
        assert torch.equal(values, of(student).network.state_dict()[name]), name
    other = learn_start(load_student(folder), replace(BRIEF, steps=1, seed=1))
    assert not torch.equal(next(other.network.parameters()), next(of(student).network.parameters()))


def test_a_search_starts_at_its_guess(student: Student) -> None:
    values = student.sample(3, seed=5)
    mask = torch.arange(POINTS**2).reshape(POINTS, POINTS) % 7 == 0
    seen = observe(student, "reconstruct", values, mask)
    vectors = of(student).vectors(student, seen, None)
    task = pose(student, seen, None, 1.0)
    wanted = task.energy(vectors, torch.arange(3), None, None)
    answer = student.reconstruct(values, mask, steps=1, starts=1, field_steps=0)
    torch.testing.assert_close(answer.energy, wanted, rtol=1e-4, atol=1e-3)
    two = student.reconstruct(values, mask, steps=1, starts=2, field_steps=0)  # the second start is a draw
    plain = replace(student, start=None).reconstruct(values, mask, steps=1, starts=2, field_steps=0)
    assert (two.energy <= answer.energy * 1.0001).all() and not torch.equal(two.energy, plain.energy)
    usual = student.reconstruct(values, mask, field_steps=0)
    assert (usual.calls <= STARTED_STEPS).all() and (usual.energy < answer.energy).all()
    assert (replace(student, start=None).reconstruct(values, mask, steps=3).calls == 12).all()


def test_parameters_are_part_of_what_is_known(tmp_path: Path) -> None:
    heat = load_student(write_generator(tmp_path / "heat", equation="heat"))
    start = learn_start(heat, Learning(steps=2, batch=4))
    with torch.no_grad():
        for parameter in start.network.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    values = heat.sample(1, seed=2)
    seen = observe(heat, "forward", values["temperature_00"])
    found = [start.vectors(heat, seen, params) for params in (None, {"diffusivity": 0.002}, {"diffusivity": 0.004})]
    assert all(one.shape == (1, heat.eps(range(1), 0).numel() + 1) and float(one[0, -1]) == 0 for one in found)
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[1], found[2])
    answer = replace(heat, start=start).forward(values["temperature_00"], steps=2)
    assert answer.calls.tolist() == [2]


class PosteriorMean(nn.Module):
    """The mean of the noise of a linear student given its known values, in closed form."""

    def __init__(self, student: Student, sigma: torch.Tensor) -> None:
        super().__init__()
        self.student = student
        self.sigma = sigma  # of each value, in physical units

    def forward(self, seen: torch.Tensor, level: torch.Tensor, flags: torch.Tensor | None) -> torch.Tensor:
        matrix, offset = affine(self.student)
        x, known = seen.double().chunk(2, dim=1)
        values = self.student.normaliser.decode(x).flatten(1)
        found = []
        for y, k in zip(values, known.flatten(1) > 0, strict=True):
            rows = matrix[k]
            covariance = rows @ rows.T + torch.diag(self.sigma.flatten()[k].square())
            found.append(rows.T @ torch.linalg.solve(covariance, y[k] - offset[k]))
        return torch.stack(found).reshape(x.shape).float()


def test_draws_are_exact_where_everything_is_linear() -> None:
    """So that a search has nothing left to do."""
    student = linear_student("poisson")
    sigma = torch.tensor([0.3, 0.002], dtype=torch.float64)[:, None, None].expand(2, 4, 4)
    exact = StartNetwork(StartCard("", {}, 0, 0.0, 0.0), PosteriorMean(student, sigma))
    values = student.sample(2, seed=7)
    known = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    mask = {name: known[:, c] for c, name in enumerate(student.channels)}
    given = {"values": values, "count": 8, "mask": mask, "sigma": {"source": 0.3, "solution": 0.002}}
    at_once = replace(student, start=exact).posterior("reconstruct", **given, steps=1)
    searched = student.posterior("reconstruct", **given, steps=400)
    for name in student.channels:
        spread = float(searched.spread[name].mean())
        assert float((at_once.samples[name] - searched.samples[name]).abs().max()) < 0.02 * spread
    assert (at_once.calls == 8).all()


def test_readings_between_grid_points_are_searched_for_as_without_it(student: Student) -> None:
    """They are not among its input, so that its guess would say little."""
    reading = points(student, "pressure", [[0.3, 0.4]], [0.004])
    plain = replace(student, start=None)
    found = [one.reconstruct(readings=[reading], steps=3) for one in (student, plain)]
    assert torch.equal(found[0].eps, found[1].eps) and found[0].calls.tolist() == [12]


def test_a_start_network_of_an_earlier_student_is_left_out_with_a_warning(folder: Path, tmp_path: Path) -> None:
    other = write_generator(tmp_path / "student", seed=1)
    write_start(other, of(load_student(folder)))
    with pytest.warns(UserWarning, match="start: made for another student, and left out; learn it again"):
        assert load_student(other).start is None


def edit(own: Path, **changes: object) -> None:
    plain = json.loads((own / artifact.CARD).read_text())
    del plain["sha256"]
    artifact.write_plain(own, plain | changes)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda own: (own / artifact.WEIGHTS).write_bytes(b"x"), "1 bytes, the card says"),
    (lambda own: (own / artifact.WEIGHTS).unlink(), "missing; the card expects a file"),
    (lambda own: (own / artifact.CARD).unlink(), "missing; the folder holds no consolidated generator"),
    (lambda own: (own / artifact.CARD).write_text("{"), "not JSON"),
    (lambda own: edit(own, kind="student"), "holds a 'student', expected a start network"),
    (lambda own: edit(own, steps="many"), "expected a whole number"),
    (lambda own: edit(own, further=1), "further: unknown"),
    (lambda own: edit(own, architecture={"kind": "unet"}), "card and weights do not fit together"),
]


@pytest.mark.parametrize(("change", "words"), DAMAGES)
def test_a_damaged_one_is_one_line(tmp_path: Path, folder: Path, change: Callable[[Path], object], words: str) -> None:
    path = write_generator(tmp_path / "student")
    write_start(path, of(load_student(folder)))
    change(path / FOLDER)
    with pytest.raises(UserError) as raised:
        load_student(path)
    assert words in str(raised.value) and str(path / FOLDER) in str(raised.value) and "\n" not in str(raised.value)
    assert load_student(path, with_start=False).start is None


def test_the_command_writes_it_beside_the_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_generator(tmp_path / "student")
    words = ["learn-start", "--student", str(path), "--steps", "2", "--batch", "4"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{path / FOLDER}: 2 steps" in said and "the mean field 1.00" in said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of(load_student(path)).card.steps == 2
    assert main(words) == 2 and "start: there is one; --force replaces it" in capsys.readouterr().err
    assert main([*words, "--force", "--seed", "1"]) == 0
    np.save(tmp_path / "known.npy", np.full((POINTS, POINTS), 0.005))
    capsys.readouterr()
    given = ["solve", "inverse", "--student", str(path), "--input", str(tmp_path / "known.npy")]
    assert main([*given, "--out", str(tmp_path / "answer.npz"), "--steps", "3"]) == 0
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        assert file["figures/calls"].tolist() == [3]  # one start


def test_wrong_words_of_the_command_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_generator(tmp_path / "student")
    write_generator(tmp_path / "teacher", "teacher")
    for wrong, line in (
        (["--student", str(tmp_path / "teacher")], "holds a teacher, expected a student"),
        (["--student", str(path), "--steps", "0"], "steps=0"),
        (["--student", str(path), "--rate", "nan"], "rate=nan"),
        (["--student", str(tmp_path / "none")], "no such folder"),
    ):
        assert main(["learn-start", *wrong]) == 2
        errors = capsys.readouterr().err
        assert line in errors and errors.count("\n") == 1, errors
    assert not (path / FOLDER).exists()
