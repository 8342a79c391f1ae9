"""`pidscale compare` on a real Ray: killed at every stage it ends with the same table, and measures nothing twice."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from pidscale.app.main import main
from tests.scripts import TINY, family, finish, kill, start, wait_for

TIMES = ("ms_per_sample", "train_seconds")  # differ from run to run


def words(folder: Path, name: str) -> list[str]:
    own = [
        f"run.folder={folder}",
        f"run.name={name}",
        "data.test=24",
        "cluster.workers=1",
        "teacher.steps=20",
        "distill.steps=20",
        "compare.tasks=[sample,reconstruct]",
        "compare.only=[truth,teacher-4,piddm,piddm-lambda0,flow-18,direct,bad]",
        "compare.rows.bad={method: latent_search, optimiser: newton, network: piddm}",
        "compare.fields=4",
        "compare.heads=[2]",
        "compare.seeds=[5]",
    ]
    given = dict(word.split("=", 1) for word in [*TINY, *own])
    return [f"{key}={value}" for key, value in given.items()]


def command(pid: int) -> str:
    """The command line of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def rows_of(folder: Path) -> list[dict]:
    found = json.loads((folder / "compare.json").read_text())
    return [{key: value for key, value in row.items() if key not in TIMES} for row in found["rows"]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison without interruptions."""
    folder = tmp_path_factory.mktemp("whole")
    log = folder / "log"
    said, _ = finish(start("compare", words(folder, "table"), log), log, code=2)
    assert "error: darcy bad reconstruct, seed 5: " in said
    assert str(folder / "table" / "index.html") in said
    beginnings = {line.split(": ")[0] for line in said.splitlines() if "teacher [" in line or "distill [" in line}
    assert beginnings == {"darcy-5-teacher", "darcy-5-flow", "darcy-5-piddm"}  # Ray has room for two workers
    return folder / "table"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_has_every_cell_and_the_reason_of_what_failed(whole: Path) -> None:
    found = json.loads((whole / "compare.json").read_text())
    methods = {
        task: [row["method"] for row in found["rows"] if row["task"] == task] for task in ("sample", "reconstruct")
    }
    teacher = ["teacher-4", "teacher-4+head-2"]
    student = ["piddm", "piddm+solve", "piddm+head-2", "piddm-lambda0", "piddm-lambda0+smooth3", "piddm-lambda0+head-2"]
    flow = ["flow-18", "flow-18+head-2"]
    assert methods["sample"] == ["truth", *teacher, *student, *flow]
    assert methods["reconstruct"] == ["direct", "direct+head-2"]
    assert {(one["row"], one["task"]) for one in found["failed"]} == {("bad", "reconstruct")}
    assert all(row["seed"] == 5 and row["equation"] == "darcy" for row in found["rows"])
    by_name = {row["method"]: row for row in found["rows"]}
    assert by_name["piddm"]["train_seconds"] > by_name["teacher-4"]["train_seconds"] > 0
    assert (
        set(found["meta"]["settings"]["darcy"]) == {"teacher", "flow", "piddm"}
        and found["meta"]["compare"]["fields"] == 4
    )
    assert (whole / "index.html").read_text().count("<table") == 4  # two tasks, when it pays, settings
    assert (whole / "compare.csv").read_text().count("\n") == 1 + len(found["rows"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_stage_it_ends_with_the_same_table(whole: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    stages = {
        "teacher": lambda: any((table / "darcy-5-teacher" / "checkpoints" / "teacher").glob("step_*/manifest.json")),
        "student": lambda: any((table / "darcy-5-piddm" / "checkpoints" / "distill").glob("step_*/manifest.json")),
        "cells": lambda: any((table / "cells").glob("*.json")),
    }
    for number, (stage, reached) in enumerate(stages.items()):
        log = tmp_path / f"log-{stage}"
        process = start("compare", words(tmp_path, "table"), log)
        try:
            wait_for(reached, process, log)
            drivers = [pid for pid in family(process.pid) if "multiprocessing.spawn" in command(pid)]
            assert drivers or stage == "cells"
            process.kill()  # alone: the drivers of networks end by themselves
            until = time.monotonic() + 30
            while any("multiprocessing.spawn" in command(pid) for pid in drivers):
                assert time.monotonic() < until
                time.sleep(0.1)
        finally:
            kill(process)
        assert not (table / "index.html").exists(), number
    before = {path: path.stat().st_mtime_ns for path in (table / "cells").glob("*.json")}
    log = tmp_path / "log"
    finish(start("compare", words(tmp_path, "table"), log), log, code=2)
    assert rows_of(table) == rows_of(whole)
    assert before and all(path.stat().st_mtime_ns == time for path, time in before.items())
    again, _ = finish(start("compare", words(tmp_path, "table"), log), log, code=2)
    assert "finished already" in again and rows_of(table) == rows_of(whole)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stop_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start("compare", [*words(tmp_path, "table"), "teacher.steps=4000"], log)
    checkpoints = tmp_path / "table" / "darcy-5-teacher" / "checkpoints" / "teacher"
    try:
        wait_for(lambda: any(checkpoints.glob("step_*/manifest.json")), process, log)
        process.send_signal(signal.SIGTERM)
        _, errors = finish(process, log, code=2)
    finally:
        kill(process)
    assert "teacher was stopped; the same command goes on from its last checkpoint" in errors


def test_too_few_truths_are_an_error_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *words(tmp_path, "few"), "data.test=12"]) == 2
    assert "evaluate.samples=8: needs 16 held-out truths" in capsys.readouterr().err
    assert main(["compare", *words(tmp_path, "few"), "data.test=18"]) == 2
    assert "compare.fields=4: needs 20 held-out truths" in capsys.readouterr().err
    assert not (tmp_path / "few").exists()
