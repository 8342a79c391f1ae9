"""A long run on two hosts with a loss every few minutes: its checkpoints are those of the unbroken run, and nothing piles up.

`python -m benchmarks.proofs.soak` runs it for an hour; without --soak, this file is not collected. The unbroken run is at
work at the same time, on two hosts of its own. Both are stopped when the time is over; what they hold after the same number
of steps (weights, moments and averages) must be equal.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import LACKING, POSSIBLE
from tests.pair import Pair, driver
from tests.scripts import family

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(4 * 3600),
    pytest.mark.skipif(not POSSIBLE, reason=LACKING),
]
SETTINGS = [
    "teacher.steps=1000000",
    "teacher.checkpoint_every=20",
    "teacher.keep_every=200",
    "teacher.evaluate_every=5000",
]
SETTINGS += ["cluster.max_failures=1000", "cluster.wait=300", "cluster.timeout=60"]
LOOK_EVERY = 20.0  # seconds


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[list[Pair]]:
    """Two clusters of two hosts."""
    made: list[Pair] = []
    try:
        for name in ("soaked", "unbroken"):
            (tmp_path / name).mkdir()
            made.append(Pair(tmp_path / name, {"RAY_task_events_max_num_task_in_gcs": "1000"}))  # as launch/ sets it
            made[-1].start()
        yield made
    finally:
        for pair in made:
            pair.close()


def _looks(pair: Pair, process: Any) -> dict[str, float]:
    """What could pile up: memory and handles of the command and of Ray on the first host, which is never lost, and files.

    Two figures grow by design: Ray reads logs of past workers (at most 200 handles), and a run keeps the curves and the
    traceback of each attempt.
    """
    host = pair.hosts["one"].first
    found: dict[str, float] = {
        "processes": 0,
        "memory_mib": 0.0,
        "handles": 0,
        "handles_on_logs": 0,
        "command_mib": 0.0,
    }
    command = driver(process)
    for number in (command, *family(host)):
        try:
            size = int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            title = Path(f"/proc/{number}/cmdline").read_text()
            targets = [os.readlink(entry) for entry in Path(f"/proc/{number}/fd").iterdir()]
        except OSError:
            continue
        if number == command:
            found["command_mib"] = size
        elif "ray::" not in title:  # daemons: those of attempts come and go
            found["processes"] += 1
            found["memory_mib"] += size
            on_logs = sum(bool(re.search(r"/logs/worker-", target)) for target in targets)
            found["handles"] += len(targets) - on_logs
            found["handles_on_logs"] += on_logs
    root = Path(f"/proc/{host}/root")
    found["shared_memory_mib"] = sum(map(_size, (root / "dev/shm").iterdir())) / 2**20
    run = pair.folder / "runs/run"
    found["curves_and_tracebacks"] = sum(len(_files(run / name)) for name in ("tb", "errors"))
    found["files_of_run"] = sum(path.is_file() for path in run.glob("*"))
    found["temporary_files"] = sum(path.suffix == ".tmp" for path in _files(run / "checkpoints"))
    found["temporary_files"] += len(_files(pair.hosts["one"].home)) + len(_files(root / "tmp/ray", but="logs"))
    return found


def _files(folder: Path, but: str = "") -> list[Path]:
    """What lies in a folder, at any depth; passes over what goes meanwhile, and over folders of a name."""
    return [
        Path(at, name)
        for at, inside, files in os.walk(folder)
        if not but or but not in Path(at).parts
        for name in (*inside, *files)
    ]


def _size(path: Path) -> int:
    """The bytes of a file; 0 of what is none, or gone by now."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _strike(pair: Pair, draw: random.Random) -> str:
    """Let one of three losses happen on the second host."""
    kind = draw.choice(["worker killed", "worker hangs", "host killed"])
    if kind == "host killed":
        pair.replace_second()
        return kind
    for number in family(pair.hosts["two"].first):
        try:
            title = Path(f"/proc/{number}/cmdline").read_text()
        except OSError:
            continue
        if title.startswith("ray::RayTrainWorker"):
            os.kill(number, signal.SIGKILL if kind == "worker killed" else signal.SIGSTOP)
            return kind
    return "none: no worker was there"


def _kept(pair: Pair) -> dict[int, dict[str, str]]:
    """The checksums of what the ranks have written into the checkpoints of a run, by step."""
    files = (pair.folder / "runs/run/checkpoints/teacher").glob("step_????????/manifest.json")
    manifests = [json.loads(path.read_text()) for path in files]
    return {
        one["step"]: {name: of["sha256"] for name, of in one["files"].items() if name.startswith("rank-")}
        for one in manifests
    }


def test_a_long_run_survives_a_loss_every_few_minutes(pairs, pytestconfig, record_property):
    minutes = pytestconfig.getoption("--soak")
    draw = random.Random(0)
    soaked = pairs[0]
    runs = [pair.train("run", *SETTINGS) for pair in pairs]
    process, log = runs[0]
    began = time.monotonic()
    due = began + draw.uniform(180, 300)
    looks: list[dict[str, float]] = []
    losses: list[dict[str, Any]] = []
    while (now := time.monotonic()) - began < 60 * minutes:
        assert all(one.poll() is None for one, _ in runs), [text.read_text()[-3000:] for _, text in runs]
        if now - began >= LOOK_EVERY * len(looks):
            looks.append({"minute": round((now - began) / 60, 2), **_looks(soaked, process)})
        if now >= due:
            losses.append({"minute": round((now - began) / 60, 2), "loss": _strike(soaked, draw)})
            due = now + draw.uniform(180, 300)
        time.sleep(0.5)
    for one, text in runs:
        os.kill(driver(one), signal.SIGTERM)
        assert one.wait(300) == 2, text.read_text()[-3000:]
    record_property("minutes", round((time.monotonic() - began) / 60, 1))
    record_property("losses", json.dumps(losses))
    record_property("looks", json.dumps(looks))
    record_property("failures", log.read_text().count("of cluster.max_failures=1000; goes on from step"))
    first, second = map(_kept, pairs)
    record_property("steps", max(first))
    record_property("steps_unbroken", max(second))
    common = sorted(first.keys() & second.keys())
    record_property("compared", json.dumps(common))
    same = all(first[step] == second[step] != {} for step in common)
    record_property("result_equal", same)
    assert same and len(common) > 1 and common[-1] > 0.8 * max(first)
    assert len([one for one in losses if not one["loss"].startswith("none")]) > 0
