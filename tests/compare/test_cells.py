"""Cells of a comparison: real methods on real files of small generators, measured once and never again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from pidscale.compare.cells import Cell, known, measure, shown
from pidscale.compare.tasks import observation
from pidscale.config import UserError
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.noise import FlowNoise
from pidscale.generator.generator import Generator
from pidscale.generator.load import load_teacher
from pidscale.make.make import make_shard_set
from pidscale.methods import METHODS
from pidscale.methods.base import Question
from pidscale.methods.nearest import Nearest
from pidscale.pde import build_pde
from pidscale.pde.base import Samples
from tests.generator.made import write_generator
from tests.small import settings

TASKS = ("forward", "inverse", "reconstruct", "noisy")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Generators with random weights, and the settings of their set."""
    root = tmp_path_factory.mktemp("cells")
    pde = build_pde("darcy")
    samples = {"train": 48, "test": 24}
    make_shard_set(pde, root / "shards", samples, grid=pde.grid(16), seed=3, samples_per_shard=24, parallel=False)
    made = settings(root / "shards", root, evaluate={"samples": 8, "batch": 4})
    units = open_problem(made.pde, made.data).normaliser
    write_generator(root / "teacher", "teacher", normaliser=units)
    write_generator(root / "flow", "teacher", normaliser=units, noise=FlowNoise())
    write_generator(root / "student", normaliser=units, teacher=root / "teacher")
    write_generator(root / "predicts", "regression", normaliser=units)
    write_generator(root / "headed", normaliser=units, teacher=root / "teacher", head=3)
    return root, made


def cell(place: tuple[Path, Any], folder: Path, row: dict[str, Any], task: str = "sample", name: str = "row") -> Cell:
    root, made = place
    names = {"piddm": "student", "headed": "headed", "flow": "flow", "predicts": "predicts"}
    generator = root / names.get(row.get("network", ""), "teacher")
    return Cell("darcy", 0, name, row, task, made, generator, (2,), 4, folder)


def test_a_cell_of_samples_has_a_row_for_each_finish(place: tuple[Path, Any], tmp_path: Path) -> None:
    row = {"method": "probability_flow", "steps": 3, "network": "teacher", "smooth": 3, "solve": True}
    one = cell(place, tmp_path, row, name="teacher-3")
    found = measure(one)
    assert found.failed == ""
    rows = {line["method"]: line for line in found.rows}
    assert list(rows) == ["teacher-3", "teacher-3+smooth3", "teacher-3+solve", "teacher-3+head-2"]
    assert {line["row"] for line in found.rows} == {"teacher-3"} and rows["teacher-3"]["n_samples"] == 8
    assert rows["teacher-3"]["nfe"] == 5 == rows["teacher-3+head-2"]["nfe"]
    assert rows["teacher-3+solve"]["solution_error"] < 1e-6 < rows["teacher-3"]["solution_error"]
    assert rows["teacher-3+head-2"]["residual_dual"] < rows["teacher-3"]["residual_dual"]
    kept = shown(one)
    assert list(kept) == list(rows) and kept["teacher-3"].fields.shape == (4, 2, 16, 16)
    assert found.rows[0]["machine"] and len(found.rows[0]["commit"]) >= 7
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(b"damaged")
    assert shown(one) == {} and known(one) is not None  # a picture less


def test_a_row_of_more_calls_has_the_students_teacher(place: tuple[Path, Any], tmp_path: Path) -> None:
    one = cell(place, tmp_path, {"method": "few_calls", "calls": 3, "network": "piddm"})
    distil = replace(one.settings.distill, teacher=str(place[0] / "teacher"))
    found = measure(replace(one, settings=replace(one.settings, distill=distil)))
    assert found.failed == "" and found.rows[0]["nfe"] == 3


def test_a_row_of_few_samples(place: tuple[Path, Any], tmp_path: Path) -> None:
    found = measure(cell(place, tmp_path, {"method": "one_call", "network": "piddm", "samples": 3}))
    assert found.failed == "" and found.rows[0]["n_samples"] == 3 and found.rows[0]["nfe"] == 1


def test_rows_behind_a_students_own_head(place: tuple[Path, Any], tmp_path: Path) -> None:
    """Its own row has the steps that it was made with, the others so many as they say."""
    row = {"method": "one_call", "network": "headed"}
    sampled = measure(cell(place, tmp_path, row, name="s"))
    assert [line["method"] for line in sampled.rows] == ["s", "s-head0", "s+head-2"], sampled.failed
    search = {"method": "latent_search", "steps": 3, "starts": 1, "network": "headed"}
    found = measure(cell(place, tmp_path, search, "forward", "s"))
    assert [line["method"] for line in found.rows] == ["s", "s-head0", "s+head-2"], found.failed
    for rows in (sampled.rows, found.rows):
        size = {line["method"]: line["residual_dual"] for line in rows}
        assert size["s"] < size["s+head-2"] < size["s-head0"]


@pytest.mark.parametrize("equation", ["heat", "poisson", "burgers"])
def test_cells_of_other_equations(tmp_path: Path, equation: str) -> None:
    """With parameters that vary, with exact heads, and with an input that is a row of the field."""
    pde = build_pde(equation)
    samples = {"train": 24, "test": 24}
    make_shard_set(pde, tmp_path / "set", samples, grid=pde.grid(16), seed=3, samples_per_shard=24, parallel=False)
    made = settings(tmp_path / "set", tmp_path, pde={"name": equation}, evaluate={"samples": 4, "batch": 4})
    write_generator(tmp_path / "student", equation=equation)
    row = {"method": "one_call", "network": "piddm", "solve": True}
    one = Cell(equation, 0, "s", row, "sample", made, tmp_path / "student", (2,), 4, tmp_path / "cells")
    found = measure(one)
    behind = "s+head-2" if equation == "burgers" else "s+head"
    assert [line["method"] for line in found.rows] == ["s", "s+solve", behind], found.failed
    search = replace(one, row={"method": "latent_search", "steps": 2, "starts": 1}, task="reconstruct")
    assert [line["method"] for line in measure(search).rows] == ["s", behind], measure(search).failed


@dataclass(frozen=True)
class Diverged:
    """Answers with fields one of which is not finite, as a network that has diverged."""

    source: ClassVar[str] = "none"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({"sample"})

    def run(self, generator: Generator, asked: Question) -> Samples:
        assert asked.truth is not None
        fields = asked.truth.fields.clone()
        fields[0, :, 0, 3] = float("nan")
        return Samples(fields, asked.truth.params)


def test_fields_that_are_not_finite_have_a_row_without_numbers(
    place: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "diverged", Diverged)
    found = measure(cell(place, tmp_path, {"method": "diverged", "solve": True}))
    assert found.failed == "" and found.rows[0]["residual_l2"] is None and found.rows[0]["feature_distance"] is None


ANSWERING = {
    "eci": {"method": "eci", "steps": 2, "network": "flow"},
    "search": {"method": "latent_search", "steps": 3, "starts": 1, "network": "piddm"},
    "search-head": {"method": "latent_search", "steps": 3, "starts": 1, "network": "piddm", "head": 2},
    "dps": {"method": "dps", "steps": 2, "network": "teacher"},
    "diffusion_pde": {"method": "diffusion_pde", "steps": 3, "network": "teacher"},
    "direct": {"method": "direct", "steps": 5},
    "nearest": {"method": "nearest"},
    "mean_field": {"method": "mean_field"},
}


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("task", TASKS)
def test_cells_of_answers(place: tuple[Path, Any], tmp_path: Path, name: str, task: str) -> None:
    found = measure(cell(place, tmp_path, ANSWERING[name], task, name))
    assert found.failed == "", found.failed
    rows = {line["method"]: line for line in found.rows}
    assert list(rows) == ([name] if name == "search-head" else [name, f"{name}+head-2"])
    errors = {key for key in rows[name] if key.startswith("error_")}
    unknown = {"forward": {"pressure"}, "inverse": {"permeability"}}.get(task, {"permeability", "pressure"})
    assert errors == {f"error_{channel}" for channel in unknown} and rows[name]["n_samples"] == 4
    assert ("misclassified" in rows[name]) == (task != "forward")
    assert rows[name]["task"] == task and rows[name]["residual_dual"] > 0


def test_a_regression_answers_the_forward_problem(place: tuple[Path, Any], tmp_path: Path) -> None:
    row = {"method": "regression", "network": "predicts"}
    found = measure(cell(place, tmp_path, row, "forward"))
    assert found.failed == "" and found.rows[0]["nfe"] == 1 and found.rows[0]["error_pressure"] > 0
    assert [line["method"] for line in found.rows] == ["row", "row+head-2"]
    other = measure(cell(place, tmp_path, {"method": "regression", "network": "teacher"}, "forward"))
    assert other.failed == "Predict: takes regression, not a generator of kind teacher:edm"


def test_the_nearest_field_of_a_truth_that_was_trained_on_is_itself(place: tuple[Path, Any]) -> None:
    _, made = place
    problem = open_problem(made.pde, made.data)
    generator = load_teacher(place[0] / "teacher")
    training = problem.samples("train", 48)
    some = torch.tensor([5, 40, 0])
    truth = Samples(training.fields[some], training.params[some])
    for task in ("forward", "inverse", "reconstruct"):
        seen = observation(generator, truth, task)
        eps = generator.eps(range(3), 0)
        asked = Question(eps, truth.params, torch.arange(3), task, seen, training=training)
        torch.testing.assert_close(Nearest().run(generator, asked).fields, truth.fields)
    with pytest.raises(UserError, match="Nearest: needs training fields"):
        Nearest().run(generator, replace(asked, training=None))


def test_a_cell_is_known_while_what_it_depends_on_is_the_same(place: tuple[Path, Any], tmp_path: Path) -> None:
    one = cell(place, tmp_path, {"method": "one_call", "network": "piddm"})
    assert known(one) is None
    found = measure(one)
    again = known(one)
    assert again == found and not again.failed
    assert known(replace(one, row={"method": "one_call", "network": "piddm", "samples": 4})) is None
    assert known(replace(one, heads=(4,))) is None
    batch = replace(one.settings, evaluate=replace(one.settings.evaluate, batch=3))
    assert known(replace(one, settings=batch)) is None  # which milliseconds depend on
    other = replace(one.settings, evaluate=replace(one.settings.evaluate, seed=5))
    assert known(replace(one, settings=other)) is None
    root, _ = place
    write_generator(tmp_path / "other", seed=1)
    assert known(replace(one, generator=tmp_path / "other")) is None
    assert known(replace(one, generator=root / "nowhere")) is None
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text()[:-20])  # a file that was cut is measured again
    assert known(one) is None and measure(one).rows[0]["residual_l2"] == found.rows[0]["residual_l2"]


@dataclass(frozen=True)
class Broken:
    """Ends in an error of its own."""

    source: ClassVar[str] = "none"
    takes: ClassVar[frozenset[str]] = frozenset()
    answers: ClassVar[frozenset[str]] = frozenset({"sample"})

    def run(self, generator: Generator, asked: Question) -> Samples:
        raise ZeroDivisionError("first line\nsecond line")


def test_a_cell_that_fails_says_why_and_writes_nothing(
    place: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "broken", Broken)
    assert measure(cell(place, tmp_path, {"method": "broken"})).failed == "ZeroDivisionError: first line"
    wrong = measure(cell(place, tmp_path, {"method": "eci", "steps": 2, "network": "teacher"}))
    assert wrong.failed == "Eci: takes teacher:flow, not a generator of kind teacher:edm" and not wrong.rows
    root, _ = place
    missing = measure(replace(cell(place, tmp_path, {"method": "truth"}), generator=root / "nowhere"))
    assert str(root / "nowhere") in missing.failed and "\n" not in missing.failed
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    unwritable = measure(cell(place, tmp_path / "file", {"method": "truth"}))
    assert "Error" in unwritable.failed and not unwritable.rows


def test_a_file_of_a_cell_is_plain_json(place: tuple[Path, Any], tmp_path: Path) -> None:
    measure(cell(place, tmp_path, {"method": "truth"}, name="truth"))
    (path,) = tmp_path.glob("darcy-0-truth-sample-*.json")
    found = json.loads(path.read_text())
    assert found["request"]["where"] == ["darcy", 0, "truth", "sample"] and len(found["rows"]) == 1
    assert len(found["request"]["weights"]) == 64 and found["rows"][0]["solution_error"] == 0
