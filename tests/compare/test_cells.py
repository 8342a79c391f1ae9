"""Cells of a comparison: real methods on real files of small generators, measured once and never again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pidscale.compare.cells import Cell, known, measure
from pidscale.compare.sheet import load_shown
from pidscale.dataset.problem import open_problem
from pidscale.diffusion.noise import FlowNoise
from pidscale.generator.generator import Generator
from pidscale.make.make import make_shard_set
from pidscale.methods import METHODS
from pidscale.methods.base import Question
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
    return root, made


def cell(place: tuple[Path, Any], row: dict[str, Any], task: str = "sample", name: str = "row") -> Cell:
    root, made = place
    folder = {"piddm": root / "student", "flow": root / "flow"}.get(row.get("network", ""), root / "teacher")
    return Cell("darcy", 0, name, row, task, made, folder, (2,), 4)


def test_a_cell_of_samples_has_a_row_for_each_finish(place: tuple[Path, Any], tmp_path: Path) -> None:
    row = {"method": "probability_flow", "steps": 3, "network": "teacher", "smooth": 3, "solve": True}
    one = cell(place, row, name="teacher-3")
    found = measure(one, tmp_path)
    assert found.failed == ""
    rows = {line["method"]: line for line in found.rows}
    assert list(rows) == ["teacher-3", "teacher-3+smooth3", "teacher-3+solve", "teacher-3+head-2"]
    assert {line["row"] for line in found.rows} == {"teacher-3"} and rows["teacher-3"]["n_samples"] == 8
    assert rows["teacher-3"]["nfe"] == 5 == rows["teacher-3+head-2"]["nfe"]
    assert rows["teacher-3+solve"]["solution_error"] < 1e-6 < rows["teacher-3"]["solution_error"]
    assert rows["teacher-3+head-2"]["residual_dual"] < rows["teacher-3"]["residual_dual"]
    (path,) = tmp_path.glob("*.npz")
    shown = load_shown(path)
    assert list(shown) == list(rows) and shown["teacher-3"].fields.shape == (4, 2, 16, 16)


def test_a_row_of_more_calls_has_the_students_teacher(place: tuple[Path, Any], tmp_path: Path) -> None:
    one = cell(place, {"method": "few_calls", "calls": 3, "network": "piddm"})
    distil = replace(one.settings.distill, teacher=str(place[0] / "teacher"))
    found = measure(replace(one, settings=replace(one.settings, distill=distil)), tmp_path)
    assert found.failed == "" and found.rows[0]["nfe"] == 3


def test_a_row_of_few_samples(place: tuple[Path, Any], tmp_path: Path) -> None:
    found = measure(cell(place, {"method": "one_call", "network": "piddm", "samples": 3}), tmp_path)
    assert found.failed == "" and found.rows[0]["n_samples"] == 3 and found.rows[0]["nfe"] == 1


ANSWERING = {
    "eci": {"method": "eci", "steps": 2, "network": "flow"},
    "search": {"method": "latent_search", "steps": 3, "starts": 1, "network": "piddm"},
    "search-head": {"method": "latent_search", "steps": 3, "starts": 1, "network": "piddm", "head": 2},
    "dps": {"method": "dps", "steps": 2, "network": "teacher"},
    "diffusion_pde": {"method": "diffusion_pde", "steps": 3, "network": "teacher"},
    "direct": {"method": "direct", "steps": 5},
    "mean_field": {"method": "mean_field"},
}


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("task", TASKS)
def test_cells_of_answers(place: tuple[Path, Any], tmp_path: Path, name: str, task: str) -> None:
    found = measure(cell(place, ANSWERING[name], task, name), tmp_path)
    assert found.failed == "", found.failed
    rows = {line["method"]: line for line in found.rows}
    assert list(rows) == ([name] if name == "search-head" else [name, f"{name}+head-2"])
    errors = {key for key in rows[name] if key.startswith("error_")}
    unknown = {"forward": {"pressure"}, "inverse": {"permeability"}}.get(task, {"permeability", "pressure"})
    assert errors == {f"error_{channel}" for channel in unknown} and rows[name]["n_samples"] == 4
    assert ("misclassified" in rows[name]) == (task != "forward")
    assert rows[name]["task"] == task and rows[name]["residual_dual"] > 0


def test_a_cell_is_known_while_what_it_depends_on_is_the_same(place: tuple[Path, Any], tmp_path: Path) -> None:
    one = cell(place, {"method": "one_call", "network": "piddm"})
    assert known(one, tmp_path) is None
    found = measure(one, tmp_path)
    again = known(one, tmp_path)
    assert again == found and not again.failed
    assert known(replace(one, row={"method": "one_call", "network": "piddm", "samples": 4}), tmp_path) is None
    assert known(replace(one, heads=(4,)), tmp_path) is None
    other = replace(one.settings, evaluate=replace(one.settings.evaluate, seed=5))
    assert known(replace(one, settings=other), tmp_path) is None
    root, _ = place
    write_generator(tmp_path / "other", seed=1)
    assert known(replace(one, generator=tmp_path / "other"), tmp_path) is None
    assert known(replace(one, generator=root / "nowhere"), tmp_path) is None
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text()[:-20])  # a file that was cut is measured again
    assert (
        known(one, tmp_path) is None and measure(one, tmp_path).rows[0]["residual_l2"] == found.rows[0]["residual_l2"]
    )


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
    assert measure(cell(place, {"method": "broken"}), tmp_path).failed == "ZeroDivisionError: first line"
    wrong = measure(cell(place, {"method": "eci", "steps": 2, "network": "teacher"}), tmp_path)
    assert wrong.failed == "Eci: takes teacher:flow, not a generator of kind teacher:edm" and not wrong.rows
    root, _ = place
    missing = measure(replace(cell(place, {"method": "truth"}), generator=root / "nowhere"), tmp_path)
    assert str(root / "nowhere") in missing.failed and "\n" not in missing.failed
    assert not list(tmp_path.iterdir())


def test_a_file_of_a_cell_is_plain_json(place: tuple[Path, Any], tmp_path: Path) -> None:
    measure(cell(place, {"method": "truth"}, name="truth"), tmp_path)
    (path,) = tmp_path.glob("darcy-0-truth-sample-*.json")
    found = json.loads(path.read_text())
    assert found["request"]["where"] == ["darcy", 0, "truth", "sample"] and len(found["rows"]) == 1
    assert len(found["request"]["weights"]) == 64 and found["rows"][0]["solution_error"] == 0
