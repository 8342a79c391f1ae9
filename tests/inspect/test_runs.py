"""`pidscale runs` reads the files of runs, whole or damaged, and changes none. tests/test_cluster.py lists trained runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pidscale.app.main import main
from pidscale.config import Settings
from pidscale.engine import checkpoint
from pidscale.engine.slices import file_name
from pidscale.inspect.runs import runs_json
from pidscale.records.lock import LOCK, held, record_of_this_process
from pidscale.run.phases import begin
from tests import small
from tests.commands import ROOT
from tests.scripts import contents


def started(root: Path, name: str) -> Settings:
    """A run whose teacher has begun and has no checkpoint."""
    settings = small.settings(root / "shards", root, "fno", run={"folder": str(root), "name": name})
    assert begin("teacher", settings, {})
    return settings


def add_checkpoint(run: Path, step: int) -> None:
    folder = checkpoint.temporary(run / "checkpoints" / "teacher", step, "abcdefgh")
    checkpoint.begin(folder)
    (folder / file_name(0)).write_bytes(b"1")
    manifest = {"version": 2, "step": step, "world": 1, "files": {file_name(0): {"bytes": 1, "sha256": "0"}}}
    checkpoint.commit(folder, manifest, {})


def listed(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The words of each line by their first."""
    assert main(["runs", str(root)]) == 0
    out, err = capsys.readouterr()
    assert not err
    return {line.split()[0]: line.split()[1:] for line in out.splitlines()}


def test_each_phase_is_as_far_as_its_files_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started(tmp_path, "fresh")
    started(tmp_path, "stopped")
    for step in (5, 10):
        add_checkpoint(tmp_path / "stopped", step)
    started(tmp_path / "table", "darcy-0-teacher")  # a network of a comparison
    (tmp_path / "not-a-run").mkdir()
    before = contents(tmp_path)
    found = listed(tmp_path, capsys)
    assert found["fresh"] == ["darcy", "16", *["no", "checkpoint", "of", "20", "steps", "yet"], *"-----"]
    assert found["stopped"] == ["darcy", "16", *["checkpoint", "10", "of", "20"], *"-----"]
    assert "table/darcy-0-teacher" in found and "not-a-run" not in found
    assert found["curves:"] == ["tensorboard", "--logdir", str(tmp_path)]
    assert contents(tmp_path) == before


def test_a_finished_student_has_the_figures_of_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started(tmp_path, "done")
    run = tmp_path / "done"
    record = json.loads((run / "teacher.json").read_text()) | {"finished": True}
    (run / "teacher.json").write_text(json.dumps(record))
    (run / "distill.json").write_text(json.dumps({"finished": True, "signature": {"distill.steps": 30}}))
    (run / "student").symlink_to(ROOT / "students" / "darcy")
    card = json.loads((run / "student" / "card.json").read_text())["metrics"]
    found = listed(tmp_path, capsys)["done"]
    assert found[2:] == [*["20", "steps,", "but", "it", "is", "gone", "30", "steps"], *found[-4:]]
    measured = card.get("report", card)
    assert found[-4] == f"{measured['solution_error']:.3g}" and found[-3] == f"{measured['residual_dual']:.3g}"


def test_programs_get_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The keys are an interface: docs/command_line.md has them all."""
    for name in ("broken", "done", "fresh", "given", "stopped"):
        started(tmp_path, name)
    add_checkpoint(tmp_path / "stopped", 5)
    (tmp_path / "broken" / "config.json").write_text("[")
    (tmp_path / "broken" / "teacher.json").write_text("{}")
    run = tmp_path / "done"
    (run / "teacher.json").unlink()
    (run / "distill.json").write_text(json.dumps({"finished": True, "signature": {"distill.steps": 30}}))
    (run / "student").symlink_to(ROOT / "students" / "darcy")
    (run / "report").mkdir()
    (run / "report" / "index.html").touch()
    (run / "report" / "metrics.json").write_text(
        '{"rows": [{"method": "student", "swd_excess": NaN, "solution_error": 0.5}]}'
    )
    (run / "tb").mkdir()
    record = json.loads((tmp_path / "given" / "config.json").read_text())
    (tmp_path / "given" / "config.json").write_text(json.dumps(record | {"distill": {"teacher": "elsewhere"}}))
    (tmp_path / "given" / "teacher.json").rename(tmp_path / "given" / "distill.json")
    before = contents(tmp_path)
    assert main(["runs", str(tmp_path), "--json"]) == 0
    out, err = capsys.readouterr()
    found = {one["name"]: one for one in json.loads(out)["runs"]}
    assert not err and list(found) == ["broken", "done", "fresh", "given", "stopped"] and contents(tmp_path) == before
    assert found["fresh"] == {
        "name": "fresh",
        "folder": str(tmp_path / "fresh"),
        "equation": "darcy",
        "points": 16,
        "teacher": {"state": "begun", "step": 0, "steps": 20},
        "distill": {"state": "none", "step": None, "steps": None},
        **dict.fromkeys(("solution_error", "residual_dual", "swd_excess", "working", "report", "curves")),
    }
    assert found["stopped"]["teacher"] == {"state": "checkpoint", "step": 5, "steps": 20}
    assert found["broken"]["equation"] is None and found["broken"]["teacher"]["state"] == "damaged"
    assert found["given"]["teacher"]["state"] == "given"
    done = found["done"]
    assert done["distill"] == {"state": "finished", "step": 30, "steps": 30} and done["teacher"]["state"] == "none"
    assert (done["solution_error"], done["swd_excess"]) == (0.5, None)
    assert done["report"] == str(run / "report" / "index.html") and done["curves"] == str(run / "tb")
    (run / "student").unlink()
    with held(run):
        assert main(["runs", str(run), "--json"]) == 0
        (alone,) = json.loads(capsys.readouterr().out)["runs"]
    assert alone["distill"]["state"] == "gone" and alone["working"].startswith(f"process {os.getpid()} on host ")
    page = (ROOT / "docs" / "command_line.md").read_text()
    states = {"none", "given", "begun", "checkpoint", "finished", "gone", "damaged"}
    assert all(f"`{word}`" in page for word in {*alone, *alone["teacher"], *states})


def test_who_works_on_a_run_is_named_while_it_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started(tmp_path, "one")
    with held(tmp_path / "one"):
        assert " ".join(listed(tmp_path, capsys)["one"]).split("- ")[-1].startswith(f"process {os.getpid()} on host ")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "one" / LOCK).write_text(json.dumps(record_of_this_process("x", 1) | {"process": ended.pid}))
    assert listed(tmp_path, capsys)["one"][-1] == "-"


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"signature": 3, "finished": 1}'])
def test_damaged_files_are_named_and_the_others_listed(
    damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken", "whole"):
        started(tmp_path, name)
    for name in ("config.json", "teacher.json"):
        (tmp_path / "broken" / name).write_bytes(damage)
    (tmp_path / "broken" / "report").mkdir()
    (tmp_path / "broken" / "report" / "metrics.json").write_bytes(damage)
    found = listed(tmp_path, capsys)
    assert found["broken"][:6] == ["config.json", "is", "damaged", "teacher.json", "is", "damaged"]
    assert found["whole"][:2] == ["darcy", "16"]


@pytest.mark.parametrize("steps", [-3, 0, 2**70, True, "9", 1.5])
def test_steps_that_no_run_has_are_not_repeated(steps: object, tmp_path: Path) -> None:
    started(tmp_path, "odd")
    record = json.loads((tmp_path / "odd" / "teacher.json").read_text())
    record["signature"]["teacher.steps"] = steps
    (tmp_path / "odd" / "teacher.json").write_text(json.dumps(record))
    assert json.loads(runs_json(tmp_path))["runs"][0]["teacher"]["steps"] is None


def test_a_figure_that_is_no_number_of_a_report_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started(tmp_path, "odd")
    (tmp_path / "odd" / "report").mkdir()
    row = f'{{"method": "student", "solution_error": 1{"0" * 400}, "residual_dual": true, "swd_excess": 0.5}}'
    (tmp_path / "odd" / "report" / "metrics.json").write_text(f'{{"rows": [{row}]}}')
    assert listed(tmp_path, capsys)["odd"][-4:] == ["-", "-", "0.5", "-"]
    assert main(["runs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"][0]
    assert [found[key] for key in ("solution_error", "residual_dual", "swd_excess")] == [None, None, 0.5]


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("nowhere", "no such folder; name the folder of your runs (run.folder), or start one: `pidscale demo`"),
        ("file", "file: a file; name"),
        ("", "holds no run"),
        ("s3://bucket/runs", "an object store is not listed"),
    ],
)
def test_a_folder_without_runs_is_one_line(
    folder: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    path = folder if "://" in folder else str(tmp_path / folder)
    assert main(["runs", path]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_a_run_listed_from_inside_has_its_name(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    started(tmp_path, "fresh")
    monkeypatch.chdir(tmp_path / "fresh")
    assert "fresh" in listed(Path("."), capsys)
