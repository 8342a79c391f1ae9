"""A disk that is full: one line, nothing left behind, and the same save works once there is room."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from pidscale.config import Settings, UserError, from_plain
from pidscale.engine import checkpoint
from pidscale.engine.disk import in_one_line, kind_of
from pidscale.meter import Board
from pidscale.parallel.mesh import Mesh
from pidscale.run.phases import begin

WRITERS = {
    "bytes": lambda path: path.write_bytes(b"x" * 10**6),
    "safetensors": lambda path: save_file({"w": torch.zeros(250_000)}, path),
    "torch": lambda path: torch.save({"w": torch.zeros(250_000)}, path),
}


def fill(root, writer):
    """A checkpoint of a megabyte, by one of the writers that a run has."""
    checkpoint.save(root, 20, {}, 1, Mesh(), 2, lambda folder: WRITERS[writer](folder / "big"))


@pytest.fixture
def disk(tmp_path):
    """A file system of 400 KiB with a small checkpoint on it, where root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system; /dev/full and a look at the room are tried below as well")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder], check=True)
    try:
        checkpoint.save(folder / "run", 10, {}, 1, Mesh(), 2, lambda own: (own / "small").write_bytes(b"x"))
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_mends_itself(disk, writer):
    root = disk / "run"
    with pytest.raises(UserError) as error:
        fill(root, writer)
    text = str(error.value)
    assert text.startswith(f"{root}: no room on the disk for the files of step 20") and "\n" not in text
    assert " free); " in text and text.endswith("make room, the same command goes on from step 10")
    assert sorted(p.name for p in root.iterdir()) == ["step_00000010"]  # its own temporary files are gone
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    fill(root, writer)
    assert checkpoint.last_sealed(root) == 20


def test_what_a_killed_attempt_left_makes_room_for_the_next_start(disk):
    """The driver writes first, and must not fail for want of the room that the run itself took."""
    made = from_plain(Settings, {"run": {"folder": str(disk), "name": "run"}})
    begin("teacher", made, {})
    left = disk / "run" / "checkpoints" / "teacher" / "step_00000020.0123abcd.tmp"
    left.mkdir(parents=True)
    (left / ".attempt").touch()
    fill_up = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (left / "big").write_bytes(b"x" * fill_up)
    assert begin("teacher", made, {}) and not left.exists()
    (disk / "mine").write_bytes(b"x" * fill_up)  # and where it is another's: one line
    with pytest.raises(
        UserError, match=r"no room on the disk for the run's records \(.* free\); make room, then the same"
    ):
        begin("teacher", made, {})


def test_a_disk_that_is_mounted_for_reading_is_told_so(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(UserError, match=r"the file system is read-only for .* mount it for writing, the same command"):
        fill(disk / "run", "bytes")
    subprocess.run(["mount", "-o", "remount,rw,size=8m", disk], check=True)
    fill(disk / "run", "bytes")


def test_a_board_on_a_full_disk_warns_once_and_the_run_goes_on(disk):
    said = []
    board = Board(disk / "tb", 0, said.append)
    (disk / "other").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    for step in range(200):
        board.scalars({f"a long name of a scalar, for the sake of bytes, {step}": 1.0}, step)
        board.flush()
    board.close()
    (line,) = said
    assert line.startswith(f"warning: {disk / 'tb'}: No space left on device") and "training goes on" in line


def test_room_is_looked_at_before_a_byte_is_written(tmp_path):
    root, wrote = tmp_path / "checkpoints", []
    with pytest.raises(
        UserError, match=r"no room on the disk .*TiB needed, .* free\); .* the same command begins anew"
    ):
        checkpoint.save(root, 5, {}, 1, Mesh(), 2, wrote.append, needed=10**17)
    assert wrote == [] and not root.exists()


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_of_a_run_is_understood(tmp_path, writer):
    """On /dev/full, which takes no byte."""
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with (
        pytest.raises(UserError, match="no room on the disk for weights") as error,
        in_one_line(tmp_path, "weights", 10, "go on"),
    ):
        WRITERS[writer](full) if writer != "safetensors" else full.write_bytes(b"x" * 10**6)
    assert kind_of(error.value.__cause__) == errno.ENOSPC


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EACCES, "denied"), RuntimeError("shapes differ")])
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, in_one_line(tmp_path, "weights", 10, "go on"):
        raise error
    assert raised.value is error
    assert kind_of(OSError(errno.EDQUOT, "quota")) == errno.EDQUOT
