"""A report of truths of a small shard set and three small generators with random weights."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pidscale.app import demo
from pidscale.compare.run import evaluate, report_path
from pidscale.compare.tables import table
from pidscale.config import Settings, UserError
from pidscale.dataset.problem import open_problem
from pidscale.generator import artifact
from pidscale.generator.load import load_student
from pidscale.page.html import number_text
from tests.browser import browser, needs_browser
from tests.generator.made import write_generator
from tests.small import settings

METHODS = ["truth", "trivial", "shuffled", "teacher-heun-2", "teacher-heun-3", "teacher+smooth3"]
METHODS += ["teacher+head-2", "teacher+head-32", "student-lambda0", "student-lambda0+smooth3", "student-lambda0-head0"]
METHODS += ["student-lambda0+head-32", "sample-then-solve", "student", "student+head-2", "student+head-32"]
METHODS += ["student-2", "student-8", "student-refined"]
EVALUATE = {"samples": 8, "batch": 3, "teacher_steps": [3, 2], "calls": [8, 2], "refine": 5, "head_steps": [32, 2]}
KEYS = {
    "method",
    "trained",
    "asked",
    "gradients",
    "residuals",
    "nfe",
    "residual_l2",
    "residual_dual",
    "boundary_rms",
    "residual_floor",
    "residual_floor_dual",
}
KEYS |= {"residual_trivial", "residual_trivial_dual", "solution_error", "phase_error", "mmse", "smse", "swd"}
KEYS |= {"swd_floor", "swd_excess", "swd_by_channel", "patch_swd", "variance_ratio", "spectrum_error"}
KEYS |= {
    "residual_abs",
    "feature_distance",
    "feature_floor",
    "feature_excess",
    "nearest_training",
    "ms_per_sample",
    "train_seconds",
    "n_samples",
    "seeds",
}


@pytest.fixture(scope="module")
def made(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Evaluate a run once, and return its results and files."""
    root = tmp_path_factory.mktemp("runs")
    s: Settings = settings(small_shards, root, evaluate=EVALUATE)
    units = open_problem(s.pde, s.data).normaliser
    folder = root / "run"
    write_generator(folder / "teacher", "teacher", normaliser=units)
    write_generator(folder / "student-lambda0", normaliser=units, seed=1, head=2)
    write_generator(folder / "student", network="fno", normaliser=units, seed=2, teacher=folder / "teacher")
    before = answers(folder / "student", folder / "teacher")
    result = evaluate(s)
    rows = {row["method"]: row for row in result["rows"]}
    page = report_path(s).read_text()
    return SimpleNamespace(settings=s, folder=folder, result=result, rows=rows, page=page, before=before)


def answers(folder: Path, teacher: Path) -> dict[str, Tensor]:
    """Return the results of all methods of a student as one dict."""
    student = load_student(folder, teacher=teacher)
    drawn = student.sample(2, seed=4)
    how = {"steps": 6, "starts": 1}
    results = {"sample": drawn, "more": student.sample(2, nfe=3), "residual": student.residual(drawn)}
    results["refine"] = student.refine(2, steps=12).fields
    results["forward"] = student.forward(drawn["permeability"], **how).fields
    results["inverse"] = student.inverse(drawn["pressure"], **how).fields
    results["reconstruct"] = student.reconstruct({"pressure": drawn["pressure"]}, torch.eye(16) > 0, **how).fields
    results["posterior"] = student.posterior("inverse", drawn["pressure"], count=2, steps=6).samples
    return {f"{name} {key}": values for name, found in results.items() for key, values in found.items()}


def test_a_report_does_not_change_the_answers_of_a_student(made: SimpleNamespace, tmp_path: Path) -> None:
    teacher = made.folder / "teacher"
    after = answers(made.folder / "student", teacher)
    assert all(torch.equal(made.before[name], values) for name, values in after.items()) and len(after) == 17
    # with a floor in the report that would end every descent at once if it were read
    folder = shutil.copytree(made.folder / "student", tmp_path / "student")
    metrics = artifact.read_card(folder).metrics
    artifact.update_metrics(folder, replace(metrics, report={**metrics.report, "residual_floor": 1e6}))
    assert all(torch.equal(made.before[name], values) for name, values in answers(folder, teacher).items())


def test_every_method_has_a_row_with_every_measure(made: SimpleNamespace) -> None:
    assert [row["method"] for row in made.result["rows"]] == METHODS
    assert all(row.keys() == KEYS for row in made.result["rows"])
    stored = json.loads((made.folder / "report" / "metrics.json").read_text())
    assert stored == json.loads(json.dumps(made.result))
    assert {"versions", "device", "threads", "input_points_raised", "settings"} <= stored["meta"].keys()


def test_truths_and_controls_bound_the_measures(made: SimpleNamespace) -> None:
    rows = made.rows
    truth = rows["truth"]
    trivial = rows["trivial"]
    shuffled = rows["shuffled"]
    assert truth["residual_l2"] == truth["residual_floor"] < 1e-4 and truth["solution_error"] < 1e-5
    assert truth["swd_excess"] == 0 == truth["swd"] and truth["phase_error"] == 0
    assert trivial["residual_l2"] == pytest.approx(1) == trivial["residual_trivial_dual"]
    assert trivial["solution_error"] == pytest.approx(1)
    assert shuffled["residual_l2"] > 0.3 and shuffled["variance_ratio"]["pressure"] == pytest.approx(1, rel=1e-4)
    assert shuffled["solution_error"] > 0.1
    solved = rows["sample-then-solve"]
    assert solved["solution_error"] < 1e-5
    assert rows["student"]["solution_error"] > 0.5 and rows["student"]["residual_l2"] > 0.1
    assert solved["variance_ratio"]["permeability"] == rows["student"]["variance_ratio"]["permeability"]
    smooth = rows["teacher+smooth3"]
    rough = rows["teacher-heun-3"]
    assert smooth["residual_l2"] < rough["residual_l2"] and smooth["nfe"] == rough["nfe"]


def test_solver_steps_behind_a_network_lower_its_error_as_much_as_they_are(made: SimpleNamespace) -> None:
    rows = made.rows
    for name, plain, few in (
        ("teacher", "teacher-heun-3", "teacher+head-2"),
        ("student", "student", "student+head-2"),
        ("student-lambda0", "student-lambda0-head0", "student-lambda0"),
    ):
        errors = [rows[one]["solution_error"] for one in (plain, few, f"{name}+head-32")]
        assert errors[2] < 0.01 * errors[0] and errors[1] < errors[0], (name, errors)
        assert rows[few]["nfe"] == rows[plain]["nfe"] and rows[few]["boundary_rms"] == 0 < rows[plain]["boundary_rms"]
        assert rows[few]["variance_ratio"]["permeability"] == rows[plain]["variance_ratio"]["permeability"]
    assert rows["student-lambda0-head0"]["asked"] == {"method": "one_call", "head": 0}
    assert rows["student+head-2"]["asked"] == {"method": "one_call", "finish": "head", "head": 0}
    assert rows["student-lambda0+smooth3"]["asked"]["head"] == 0 and rows["student-lambda0+smooth3"]["boundary_rms"] > 0


def test_network_calls_and_costs_are_those_of_each_method(made: SimpleNamespace) -> None:
    nfe = {name: row["nfe"] for name, row in made.rows.items()}
    assert nfe["truth"] == 0 and nfe["teacher-heun-2"] == 3 and nfe["teacher-heun-3"] == 5 and nfe["student"] == 1
    assert (
        nfe["student-2"] == 2 and nfe["student-8"] == 8 and 2 <= nfe["student-refined"] <= 7 + 6
    )  # 6 calls for scales that its card does not have
    gradients = {name: row["gradients"] for name, row in made.rows.items()}
    assert 1 < gradients.pop("student-refined") <= 5 and not any(gradients.values())
    for name in ("teacher-heun-3", "student", "student-lambda0", "student-8", "student-refined"):
        assert made.rows[name]["ms_per_sample"] > 0 and made.rows[name]["train_seconds"] == 1.5
    assert all(row["n_samples"] == 8 and row["seeds"] == [0, 1000] for row in made.result["rows"])


def test_the_page_loads_nothing_from_elsewhere(made: SimpleNamespace) -> None:
    page = made.page
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert not re.search(r"://|<script |<link|@import|url\(", page) and page.count("<script>") == 1
    sources = re.findall(r'src(?:set)?="([^"]*)"', page)
    assert len(sources) == 2 * (1 + 2 + 3)  # for light and dark: fields, spectra, errors against calls
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        picture = base64.b64decode(source.split(",", 1)[1], validate=True)
        assert picture.startswith(b"\x89PNG\r\n") and picture.endswith(b"IEND\xaeB`\x82") and len(picture) > 10000


@needs_browser
def test_a_browser_draws_the_page_on_any_screen(made: SimpleNamespace, tmp_path: Path) -> None:
    path = report_path(made.settings)
    own = "[...document.querySelector('tr.own').cells].slice(0, 2).map(cell => cell.textContent)"
    with browser(tmp_path) as screen:
        for width, dark in ((1280, False), (500, True)):
            found = screen.open(path, width, dark)
            assert found["missing"] == [] and found["images"] == 6 and found["silent"] == 0 and found["wider"] <= 0
            assert found["dark"] == dark and not screen.errors
        screen.click("[...document.querySelectorAll('th button')].find(b => b.textContent === 'calls')")
        screen.click("document.querySelector('.table > button')")
        lines = [line.split("\t") for line in screen.clipboard().split("\n")]
        assert screen.value(own) == ["student", "1"] and len(lines) == 1 + len(METHODS)
    calls = [float(line[1]) for line in lines[1:]]
    assert calls == sorted(calls)
    copied = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    for name, row in made.rows.items():
        assert float(copied[name]["residual dual"]) == row["residual_dual"]


def test_the_page_has_a_row_for_every_method(made: SimpleNamespace) -> None:
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in re.findall(r"<tr.*?</tr>", made.page)][1:]
    assert [line[0] for line in cells] == METHODS
    head = re.findall(r"<th[^>]*>(.*?)</th>", made.page)
    assert {len(line) for line in cells} == {len(head)}
    student = dict(zip(head, cells[METHODS.index("student")], strict=True))
    row = made.rows["student"]
    assert student["calls"] == "1" and student["residual l2"] == number_text(row["residual_l2"])
    assert student["solution error"] == number_text(row["solution_error"])
    assert student["variance pressure"] == number_text(row["variance_ratio"]["pressure"])
    assert f"floor {row['swd_floor']:.4f}" in made.page


def test_the_text_table_agrees_with_the_rows(made: SimpleNamespace) -> None:
    lines = table(made.result).splitlines()
    assert [line.split()[0] for line in lines[1:]] == METHODS
    assert f"{made.rows['student']['residual_dual']:.3g}" in lines[1 + METHODS.index("student")].split()


def test_more_calls_and_refinement_start_from_the_students_noise(made: SimpleNamespace) -> None:
    student = load_student(made.folder / "student")
    fields = student.refine(8, made.settings.evaluate.seed, 5, batch=3, stream="evaluate")
    rms = {k: float(v.square().mean().sqrt()) for k, v in fields.before.items()}
    row = made.rows["student"]
    refined = made.rows["student-refined"]
    assert rms["l2"] == pytest.approx(row["residual_l2"], rel=1e-4)
    assert refined["residual_l2"] < row["residual_l2"] and refined["residual_dual"] < row["residual_dual"]
    assert made.rows["student-2"]["residual_l2"] != row["residual_l2"] != made.rows["student-8"]["residual_l2"]


def test_cards_hold_the_row_of_their_generator(made: SimpleNamespace) -> None:
    for name, method in (("teacher", "teacher-heun-3"), ("student", "student"), ("student-lambda0", "student-lambda0")):
        metrics = artifact.read_card(made.folder / name).metrics
        assert metrics.train_seconds == 1.5
        assert metrics.report == json.loads(json.dumps(made.rows[method]))


def test_a_student_is_measured_with_the_teacher_of_another_run(
    made: SimpleNamespace, small_shards: Path, tmp_path: Path
) -> None:
    few = {"samples": 4, "batch": 4, "teacher_steps": [3]}
    (tmp_path / "run").mkdir()
    shutil.copytree(made.folder / "student", tmp_path / "run" / "student")
    with pytest.raises(UserError, match=r"run/teacher: no such folder; .* set distill\.teacher"):
        evaluate(settings(small_shards, tmp_path, evaluate=few))
    write_generator(tmp_path / "other", "teacher", seed=7)
    with pytest.raises(UserError, match=r"other: not the teacher that .*run/student was distilled from"):
        evaluate(settings(small_shards, tmp_path, distill={"teacher": str(tmp_path / "other")}, evaluate=few))
    theirs = settings(small_shards, tmp_path, distill={"teacher": str(made.folder / "teacher")}, evaluate=few)
    before = (made.folder / "teacher" / artifact.CARD).read_bytes()
    rows = {row["method"]: row for row in evaluate(theirs)["rows"]}
    assert (made.folder / "teacher" / artifact.CARD).read_bytes() == before
    for name in ("teacher", "student"):
        shutil.copytree(made.folder / name, tmp_path / "whole" / "run" / name)
    own = {row["method"]: row for row in evaluate(settings(small_shards, tmp_path / "whole", evaluate=few))["rows"]}
    for method in ("teacher-heun-3", "student"):
        assert rows[method]["residual_l2"] == own[method]["residual_l2"]
    assert not (tmp_path / "run" / "teacher").exists()
    assert artifact.read_card(tmp_path / "run" / "student").metrics.report["n_samples"] == 4


def test_a_report_of_another_size_is_kept(made: SimpleNamespace, small_shards: Path) -> None:
    fewer = settings(small_shards, made.folder.parent, evaluate={"samples": 4, "batch": 4, "teacher_steps": [2]})
    before = (made.folder / "report" / "metrics.json").read_bytes()
    evaluate(fewer)
    assert (made.folder / "report" / "metrics-8.json").read_bytes() == before
    assert (made.folder / "report" / "index-8.html").read_text() == made.page
    assert json.loads((made.folder / "report" / "metrics.json").read_text())["rows"][0]["n_samples"] == 4


def test_too_few_truths_are_named(made: SimpleNamespace, small_shards: Path) -> None:
    more = settings(small_shards, made.folder.parent, evaluate={"samples": 9})
    with pytest.raises(UserError, match=r"evaluate\.samples=9: needs 18 .* has 16"):
        evaluate(more)


def test_a_run_of_another_equation_is_not_measured_as_this_one(made: SimpleNamespace, heat_shards: Path) -> None:
    before = (made.folder / "student" / artifact.CARD).read_text()
    other = settings(heat_shards, made.folder.parent)
    with pytest.raises(UserError, match=r"teacher of equation darcy, .* the settings say heat, .*run\.name"):
        evaluate(other)
    assert (made.folder / "student" / artifact.CARD).read_text() == before


def test_a_demo_with_too_few_truths_ends_before_any_training(small_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.make_shards, "run", lambda settings: None)  # the set is there
    monkeypatch.setattr(demo, "run_phase", lambda phase, settings: pytest.fail("trained"))
    asked = settings(small_shards, tmp_path, evaluate={"samples": 9})
    with pytest.raises(UserError, match=r"evaluate\.samples=9: needs 18 held-out truths .* has 16; lower") as error:
        demo.run(asked)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
