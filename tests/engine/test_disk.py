"""A full disk: the error is one line, no files are left, and the same save works once there is room."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from pidscale.config import Settings, UserError, from_plain
from pidscale.engine import sealer
from pidscale.engine.checkpoint import newest_step
from pidscale.engine.disk import disk_errno, in_one_line
from pidscale.engine.slices import write
from pidscale.meter import Board
from pidscale.run.phases import begin
from tests.sealed import seal, whole

WRITERS = {
    "bytes": lambda path: path.write_bytes(b"x" * 10**6),
    "safetensors": lambda path: save_file({"w": torch.zeros(250_000)}, path),
    "slices": lambda path: write(path, [whole("w", torch.zeros(250_000))]),
}


def fill(root, numbers=250_000):
    """Save a checkpoint, of one megabyte by default."""
    seal(root, 20, slices=[whole("w", torch.zeros(numbers))], keep=2)


@pytest.fixture
def disk(tmp_path):
    """A file system of 400 KiB with a small checkpoint on it; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip(
            "only root may mount a small file system; the tests with /dev/full and of free space run all the same"
        )
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder], check=True)
    try:
        seal(folder / "run", 10, slices=[whole("w", torch.zeros(9))])
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("known", [True, False], ids=["before", "while it is written"])
def test_a_full_disk_is_one_line_and_a_later_save_works(disk, known, monkeypatch):
    root = disk / "run"
    if not known:  # as where others fill the disk meanwhile
        monkeypatch.setattr(sealer, "lack_of_room", lambda *_: None)
    with pytest.raises(UserError) as error:
        fill(root)
    text = str(error.value)
    assert text.startswith(f"{root}: no room on the disk for the files of step 20") and "\n" not in text
    assert " free); " in text and text.endswith("make room, the same command goes on from step 10")
    assert sorted(p.name for p in root.iterdir()) == ["step_00000010"]  # the temporary files are removed
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    fill(root)
    assert newest_step(root) == 20


def test_files_of_a_killed_save_are_removed_before_the_next_start(disk):
    """The driver writes first, and must not fail for lack of the space that the run itself has taken."""
    made = from_plain(Settings, {"run": {"folder": str(disk), "name": "run"}})
    begin("teacher", made, {})
    left = disk / "run" / "checkpoints" / "teacher" / "step_00000020.0123abcd.tmp"
    left.mkdir(parents=True)
    (left / ".attempt").touch()
    fill_up = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (left / "big").write_bytes(b"x" * fill_up)
    assert begin("teacher", made, {}) and not left.exists()
    (disk / "mine").write_bytes(b"x" * fill_up)  # files of others stay, and the error is one line
    with pytest.raises(
        UserError, match=r"no room on the disk for the run's records \(.* free\); make room, then the same"
    ):
        begin("teacher", made, {})


def test_a_read_only_file_system_is_named(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(UserError, match=r"the file system is read-only for .* mount it for writing, the same command"):
        fill(disk / "run", 9)
    subprocess.run(["mount", "-o", "remount,rw,size=8m", disk], check=True)
    fill(disk / "run", 9)


def test_tensorboard_on_a_full_disk_warns_once_and_the_run_goes_on(disk):
    said = []
    board = Board(disk / "tb", 0, said.append)
    (disk / "other").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    for step in range(200):
        board.scalars({f"a long name of a scalar, for the sake of bytes, {step}": 1.0}, step)
        board.flush()
    board.close()
    (line,) = said
    assert line.startswith(f"warning: {disk / 'tb'}: No space left on device") and "training goes on" in line


def test_free_space_is_checked_before_a_byte_is_written(tmp_path):
    root = tmp_path / "checkpoints"
    large = torch.empty(1).expand(10**17)
    with pytest.raises(
        UserError, match=r"no room on the disk .*TiB needed, .* free\); .* the same command starts again"
    ):
        seal(root, 5, slices=[replace(whole("w", torch.zeros(1)), held=large)])
    assert not root.exists()


@pytest.mark.parametrize("writer", WRITERS)
def test_the_error_of_every_writer_is_recognised(tmp_path, writer):
    """Written to /dev/full, which is always full."""
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with (
        pytest.raises(UserError, match="no room on the disk for weights") as error,
        in_one_line(tmp_path, "weights", 10, "go on"),
    ):
        WRITERS[writer](full) if writer != "safetensors" else full.write_bytes(b"x" * 10**6)
    assert disk_errno(error.value.__cause__) == errno.ENOSPC


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EACCES, "denied"), RuntimeError("shapes differ")])
def test_other_errors_are_not_changed(tmp_path, error):
    with pytest.raises(type(error)) as raised, in_one_line(tmp_path, "weights", 10, "go on"):
        raise error
    assert raised.value is error
    assert disk_errno(OSError(errno.EDQUOT, "quota")) == errno.EDQUOT
