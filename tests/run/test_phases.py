"""Phases of a run: a new one begins, a finished one is left alone, a changed one is refused by name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pidscale.config import Settings, UserError, from_plain
from pidscale.engine import checkpoint
from pidscale.parallel.mesh import Mesh
from pidscale.run import phases
from pidscale.run.phases import begin, due, finish, hold_run, run_folder, signature, versions

INPUTS = {"data set": "aaaa"}


def settings(folder: Path, **sections: dict[str, Any]) -> Settings:
    run = {"folder": str(folder), "name": "r"} | sections.pop("run", {})
    return from_plain(Settings, {"run": run, **sections})


def keep_checkpoint(made: Settings, phase: str) -> None:
    """Write the part of a checkpoint that a new attempt looks for, as a phase that was killed leaves it."""
    folder = run_folder(made) / "checkpoints" / phase / "step_00000001"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(phase: str, made: Settings, inputs: dict[str, str] = INPUTS) -> str:
    folder = run_folder(made)
    before = contents(folder)
    with pytest.raises(UserError) as raised:
        begin(phase, made, inputs)
    assert contents(folder) == before  # nothing was written or lost
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_new_run_records_what_determines_its_result(tmp_path: Path) -> None:
    made = settings(tmp_path, run={"seed": 5}, teacher={"steps": 7})
    assert begin("teacher", made, INPUTS) is True
    folder = tmp_path / "r"
    assert run_folder(made) == folder.absolute()
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "teacher.json", "versions.json"]
    record = json.loads((folder / "teacher.json").read_text())
    assert record["finished"] is False
    assert record["signature"]["run.seed"] == 5 and record["signature"]["teacher.steps"] == 7
    assert record["signature"]["data set"] == "aaaa"
    assert from_plain(Settings, json.loads((folder / "config.json").read_text())) == made
    assert json.loads((folder / "versions.json").read_text()) == versions()


def test_a_begun_phase_continues_and_a_finished_one_does_not(tmp_path: Path) -> None:
    made = settings(tmp_path)
    assert begin("teacher", made, INPUTS) and begin("teacher", made, INPUTS)
    finish("teacher", made, INPUTS)
    before = contents(tmp_path)
    assert begin("teacher", made, INPUTS) is False
    assert contents(tmp_path) == before
    assert begin("distill", made, INPUTS) is True  # another phase of the same run
    assert begin("teacher", made, INPUTS) is False


def test_a_card_of_an_attempt_that_was_killed_at_its_end_is_removed(tmp_path: Path) -> None:
    made = settings(tmp_path)
    assert begin("teacher", made, INPUTS) and begin("distill", made, INPUTS)
    for name in ("teacher", "student", "student-lambda0"):
        (tmp_path / "r" / name).mkdir()
        (tmp_path / "r" / name / "card.json").write_text("{}")
    finish("teacher", made, INPUTS)
    assert not begin("teacher", made, INPUTS) and begin("distill", made, INPUTS)
    assert [p.parent.name for p in sorted(tmp_path.glob("r/*/card.json"))] == ["teacher"]


def test_resume_never_refuses_an_existing_run_and_must_a_missing_one(tmp_path: Path) -> None:
    must, never = (settings(tmp_path, run={"resume": r}) for r in ("must", "never"))
    text = refused("teacher", must)
    assert "teacher.json" in text and "run.resume=must" in text and not (tmp_path / "r").exists()
    assert begin("teacher", never, INPUTS) is True
    text = refused("teacher", never)
    assert "run.name=r" in text and "run.resume=never" in text
    assert begin("teacher", must, INPUTS) is True
    finish("teacher", must, INPUTS)
    assert "run.resume=never" in refused("teacher", never)
    assert begin("teacher", must, INPUTS) is False


CHANGES = [
    ("teacher", {"teacher": {"steps": 8}}, "teacher.steps was 3000 and is 8 now"),
    ("teacher", {"teacher": {"lr": 0.5}}, "teacher.lr was 0.002 and is 0.5 now"),
    ("teacher", {"model": {"size": "small"}}, "model.size was 'tiny' and is 'small' now"),
    ("teacher", {"model": {"precision": "bf16"}}, "model.precision was"),
    ("teacher", {"pde": {"params": {"low": 2.0}}}, "pde.params was {} and is {'low': 2.0} now"),
    ("teacher", {"run": {"seed": 9}}, "run.seed was 0 and is 9 now"),
    ("distill", {"distill": {"weights": {"dual": 0.5}}}, "distill.weights was"),
    ("distill", {"distill": {"reuse": 3}}, "distill.reuse was 24 and is 3 now"),
    ("distill", {"pde": {"points": 64}}, "pde.points was 32 and is 64 now"),
]


@pytest.mark.parametrize(("phase", "change", "words"), CHANGES)
@pytest.mark.parametrize("done", [False, True])
def test_a_changed_setting_is_refused_by_name(
    tmp_path: Path, phase: str, change: dict[str, Any], words: str, done: bool
) -> None:
    made = settings(tmp_path)
    begin(phase, made, INPUTS)
    if done:
        finish(phase, made, INPUTS)
    else:
        keep_checkpoint(made, phase)
    text = refused(phase, settings(tmp_path, **change))
    assert words in text and f"{phase}.json" in text, text


def test_a_phase_without_a_checkpoint_takes_other_settings(tmp_path: Path) -> None:
    """A value that is refused late leaves no checkpoint, so a corrected value works under the same name."""
    assert begin("teacher", settings(tmp_path, teacher={"sigma_max": 1.0}), INPUTS)
    corrected = settings(tmp_path, teacher={"sigma_max": 100.0})
    assert due("teacher", corrected, INPUTS) and begin("teacher", corrected, INPUTS)
    record = json.loads((run_folder(corrected) / "teacher.json").read_text())
    assert record["signature"]["teacher.sigma_max"] == 100.0
    keep_checkpoint(corrected, "distill")  # another phase's
    assert due("teacher", settings(tmp_path), INPUTS)
    keep_checkpoint(corrected, "teacher")
    assert "teacher.sigma_max was 100.0" in refused("teacher", settings(tmp_path))


def test_another_number_of_workers_is_refused_before_the_start(tmp_path: Path) -> None:
    """The newest checkpoint with a valid manifest determines it. A finished phase needs no workers."""
    made = settings(tmp_path, cluster={"workers": 2, "zero_stage": 1})
    begin("teacher", made, INPUTS)
    root = run_folder(made) / "checkpoints" / "teacher"
    for step in (1, 2):
        checkpoint.save(root, step, {}, 1, Mesh(), 5, lambda folder: None)  # of one worker
    text = refused("teacher", made)
    assert "step_00000002: written with cluster.workers=1, now cluster.workers=2" in text
    assert "cluster.zero_stage=1, now cluster.zero_stage=3" in refused(
        "teacher", settings(tmp_path, cluster={"workers": 1, "zero_stage": 3})
    )
    assert due("teacher", settings(tmp_path, cluster={"workers": 1, "zero_stage": 1}), INPUTS)
    (root / "step_00000002" / "manifest.json").write_text("{}")
    assert "step_00000001: written with" in refused("teacher", made)
    finish("teacher", made, INPUTS)
    assert not due("teacher", made, INPUTS)


def test_due_writes_nothing(tmp_path: Path) -> None:
    assert due("teacher", settings(tmp_path), INPUTS) and list(tmp_path.iterdir()) == []


def test_a_run_has_one_driver_at_a_time(tmp_path: Path) -> None:
    made = settings(tmp_path)
    with hold_run(made), pytest.raises(UserError, match=r"another process is working .* run\.name"), hold_run(made):
        pass
    with hold_run(made), hold_run(settings(tmp_path, run={"name": "other"})):
        pass
    assert list(tmp_path.iterdir()) == []  # an unused folder is removed
    with hold_run(made):
        assert begin("teacher", made, INPUTS)
    assert run_folder(made).is_dir()


def test_a_changed_data_set_is_refused_by_name(tmp_path: Path) -> None:
    made = settings(tmp_path)
    begin("teacher", made, INPUTS)
    keep_checkpoint(made, "teacher")
    assert "data set was 'aaaa' and is 'bbbb' now" in refused("teacher", made, {"data set": "bbbb"})
    assert "teacher weights was None" in refused("teacher", made, INPUTS | {"teacher weights": "x"})


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("teacher", {"teacher": {"checkpoint_every": 7, "keep": 5, "log_every": 3, "max_skips": 7}}),
        ("teacher", {"distill": {"steps": 9}, "evaluate": {"samples": 8}}),
        ("teacher", {"cluster": {"workers": 1, "zero_stage": 3}}),
        ("distill", {"teacher": {"steps": 9}, "cluster": {"timeout": 60}}),
        ("distill", {"distill": {"teacher": "elsewhere", "keep": 9}}),
    ],
)
def test_settings_that_do_not_determine_the_result_may_change(
    tmp_path: Path, phase: str, change: dict[str, Any]
) -> None:
    made = settings(tmp_path)
    begin(phase, made, INPUTS)
    assert begin(phase, settings(tmp_path, **change), INPUTS) is True


def test_a_weight_that_is_newer_than_the_run_has_its_default(tmp_path: Path) -> None:
    made = settings(tmp_path)
    begin("distill", made, INPUTS)
    keep_checkpoint(made, "distill")
    path = run_folder(made) / "distill.json"
    record = json.loads(path.read_text())
    del record["signature"]["distill.weights"]["conservation"]
    path.write_text(json.dumps(record))
    assert begin("distill", made, INPUTS) is True
    assert "distill.weights was" in refused(
        "distill", settings(tmp_path, distill={"weights": {"conservation": 0.1}}), INPUTS
    )


def test_every_other_setting_of_a_phase_is_in_its_signature() -> None:
    """A new setting counts as one that determines the result unless it is declared otherwise."""
    made = Settings()
    free = {"log_every", "checkpoint_every", "keep", "max_skips"}
    for phase, own in (
        ("teacher", {"evaluate_every", "evaluate_samples", "evaluate_steps", "start"}),
        ("distill", {"teacher", "source", "ahead", "actors", "endpoints", "carry_teacher"}),
    ):
        signed = signature(phase, made, {})
        for field in dataclasses.fields(getattr(made, phase)):
            assert (f"{phase}.{field.name}" in signed) == (field.name not in free | own), field.name


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"finished": 1, "signature": {}}'])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, damage: bytes) -> None:
    made = settings(tmp_path)
    begin("teacher", made, INPUTS)
    (run_folder(made) / "teacher.json").write_bytes(damage)
    assert "teacher.json" in refused("teacher", made)


def test_only_a_checkout_has_a_commit_and_git_may_be_missing(tmp_path, monkeypatch):
    """An installation may lie in somebody's repository of other things."""
    (tmp_path / "site-packages").mkdir()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert phases._commit(tmp_path / "site-packages") == ""
    monkeypatch.setenv("PATH", "/nowhere")
    assert phases._commit(tmp_path) == "" and versions()["commit"]
