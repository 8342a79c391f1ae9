"""Runs that are driven at the same time, on a real Ray: one that fails, or whose driver is lost, leaves the others alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pidscale.cluster.fit import Stop
from pidscale.cluster.together import Job, run_together
from pidscale.config import UserError
from tests import small

WILD = {"lr": 1e8, "warmup": 0, "clip": 0.0, "steps": 60, "max_skips": 4, "checkpoint_every": 3}


def job(shards: Path, folder: Path, name: str, **teacher: Any) -> Job:
    own = small.settings(
        shards, folder, teacher=teacher, cluster={"workers": 1}, run={"folder": str(folder), "name": name}
    )
    return Job(name, "teacher", own)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_that_fails_or_is_lost_leaves_the_others_alone(
    ray_cluster: None, small_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(small_shards, tmp_path, name) for name in ("first", "second")]
    jobs += [
        job(small_shards, tmp_path, "wild", **WILD),
        job(small_shards, tmp_path, "lost", steps=100_000),
        Job("student", "distill", jobs[0].settings, after="wild"),
    ]
    most: set[str] = set()

    def progress(done: int, names: str) -> None:
        nonlocal most
        most = max(most, set(names.split()), key=len)
        if any((tmp_path / "lost" / "checkpoints" / "teacher").glob("step_*/manifest.json")):
            for process in multiprocessing.active_children():
                if process.name == "lost" and process.pid is not None:
                    os.kill(process.pid, signal.SIGKILL)

    failed = run_together(jobs, 3, Stop(), progress)
    said = capfd.readouterr().out
    assert len(most) == 3, most
    assert set(failed) == {"wild", "lost", "student"}
    assert "skipped 4 steps in a row" in failed["wild"] and failed["student"] == failed["wild"]
    assert failed["lost"] == "lost: its process ended with signal 9; the same command goes on"
    assert "error: wild could not be trained: " in said and "\nfirst: teacher: " in said
    for name in ("first", "second"):
        assert (tmp_path / name / "teacher" / "card.json").exists()
    assert not run_together(jobs[:2], 3, Stop(), lambda done, names: None)
    assert f"first: finished already in {tmp_path / 'first'}" in capfd.readouterr().out


def test_what_cannot_begin_ends_them_all(ray_cluster: None, small_shards: Path, tmp_path: Path) -> None:
    wrong = job(tmp_path / "nowhere", tmp_path, "wrong")
    with pytest.raises(UserError, match="nowhere"):
        run_together([wrong], 2, Stop(), lambda done, names: None)
    assert not (tmp_path / "wrong" / "teacher").exists()
