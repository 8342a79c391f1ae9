"""The lock of a folder: between processes, after a killed owner, and between hosts that lock files each for itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pidscale.config import UserError
from pidscale.records import lock
from pidscale.records.lock import LOCK, held

HOLD = """
import sys, time
from pathlib import Path
from pidscale.records.lock import held
with held(Path(sys.argv[1])) as owner:
    print(bool(owner), flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_process_holds_a_folder_and_leaves_nothing(tmp_path):
    with held(tmp_path) as first, held(tmp_path) as second:
        assert first is not None and first.holds() and second is None
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path) as owner:
        assert owner is not None and owner.token != first.token


def test_the_lock_of_a_killed_process_is_taken_at_once(tmp_path, holder):
    with held(tmp_path) as owner:
        assert owner is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    began = time.monotonic()
    with held(tmp_path) as owner:
        assert owner is not None and owner.holds()
    assert time.monotonic() - began < lock.PATIENCE / 2


def _of_another_host(folder: Path, count: int) -> None:
    record = {"host": "other 1234", "process": 7, "token": "theirs", "count": f"{count:012d}"}
    (folder / LOCK).write_text(json.dumps(record))


def test_a_living_owner_on_another_host_is_respected_and_a_dead_one_is_not(tmp_path, monkeypatch):
    """The other host's file system has locked the file on that host alone: only its count tells that it lives."""
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(0.1):
            count += 1
            _of_another_host(tmp_path, count)

    _of_another_host(tmp_path, 0)
    thread = threading.Thread(target=beat)
    thread.start()
    with held(tmp_path) as owner:
        assert owner is None
    ended.set()
    thread.join()
    assert json.loads((tmp_path / LOCK).read_text())["token"] == "theirs"
    began = time.monotonic()
    with held(tmp_path) as owner:
        assert owner is not None and time.monotonic() - began >= 1.0
        _of_another_host(tmp_path, 9)  # a third host takes the folder, as if this process had stood still
        time.sleep(0.3)
        assert not owner.holds()
    assert json.loads((tmp_path / LOCK).read_text())["token"] == "theirs"  # neither written over nor removed


def test_the_owner_writes_a_new_count(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with held(tmp_path):
        first = json.loads((tmp_path / LOCK).read_text())
        time.sleep(0.5)
        second = json.loads((tmp_path / LOCK).read_text())
    assert second["count"] > first["count"] and second["token"] == first["token"]
    assert first["process"] == os.getpid()


def test_a_folder_that_cannot_be_written_needs_no_lock(tmp_path):
    tmp_path.chmod(0o500)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with held(tmp_path) as owner:
            assert owner is not None and owner.file is None and owner.holds()
    finally:
        if was_root:
            os.seteuid(0)
        tmp_path.chmod(0o700)


def test_a_folder_that_is_gone_is_not_said_to_be_taken(tmp_path, monkeypatch):
    """Its storage may be away: an empty mount point has no lock either."""
    monkeypatch.setattr(lock, "BEAT", 0.1)
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run") as owner:
        owner.check()
        (tmp_path / "run").rename(tmp_path / "away")
        (tmp_path / "run").mkdir()
        with pytest.raises(UserError, match=r"is gone.*once it is back, the same command goes on") as error:
            owner.check()
        assert "taken it over" not in str(error.value)
        time.sleep(0.3)  # its count is not written, and not given up
        (tmp_path / "run").rmdir()
        (tmp_path / "away").rename(tmp_path / "run")
        owner.check()
        first = json.loads((tmp_path / "run" / LOCK).read_text())["count"]
        time.sleep(0.3)
        assert json.loads((tmp_path / "run" / LOCK).read_text())["count"] > first


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_lock_file_is_refused_and_left_alone(tmp_path, kind):
    held_folder = tmp_path / "held"
    held_folder.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("data of somebody")
    lock_file = held_folder / LOCK
    make = {
        "link": lambda: lock_file.symlink_to(precious),
        "dangling link": lambda: lock_file.symlink_to(tmp_path / "nowhere"),
        "folder": lock_file.mkdir,
        "pipe": lambda: os.mkfifo(lock_file),
    }
    make[kind]()
    with pytest.raises(UserError, match=r"\.lock: not a lock file of pidscale; remove it"), held(held_folder):
        pass
    assert precious.read_text() == "data of somebody" and not (tmp_path / "nowhere").exists()


OTHERS = [
    "",
    "\0\1",
    "[" * 10**5,
    "[]",
    '{"a": 1, "b": 2, "c": 3, "d": 4}',
    '{"host": "", "process": 7}',
    '{"host": 5}',
]


@pytest.mark.parametrize("text", OTHERS, ids=range(len(OTHERS)))
def test_a_lock_file_with_other_contents_is_taken_at_once(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    assert lock.holder(tmp_path) == ""
    began = time.monotonic()
    with held(tmp_path) as owner:
        assert owner is not None and owner.holds()
    assert time.monotonic() - began < lock.PATIENCE / 2
