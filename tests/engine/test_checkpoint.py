"""A checkpoint counts once its manifest matches its files; other files in the folder are neither removed nor used."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest

from pidscale.config import UserError
from pidscale.engine import checkpoint
from pidscale.engine.checkpoint import MANIFEST
from pidscale.parallel.mesh import Mesh

STAGE = 1


def save(root, step, keep=10, stage=STAGE, mesh=None, content=None):
    def write(folder):
        (folder / "zero").mkdir()
        (folder / "zero" / "part_0.bin").write_bytes(content or bytes([step % 256]) * 5000)
        (folder / "ema.bin").write_bytes(f"average of {step}".encode() * 20)

    checkpoint.save(root, step, {"seconds": step / 3}, stage, mesh or Mesh(), keep, write)


def newest(root, stage=STAGE, mesh=None):
    said = []
    return checkpoint.newest(root, stage, mesh or Mesh(), said.append), said


def names(root):
    return sorted(p.name for p in root.iterdir())


@pytest.fixture
def root(tmp_path):
    """Checkpoints of steps 10 and 20."""
    for step in (10, 20):
        save(tmp_path / "checkpoints", step)
    return tmp_path / "checkpoints"


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert newest(tmp_path / "nowhere") == (None, [])


def test_the_newest_is_found_with_its_state(root):
    found, said = newest(root)
    assert found.step == 20 and found.folder == root / "step_00000020" and not said
    assert found.state == {"seconds": 20 / 3}  # to the last bit
    assert (found.folder / "zero" / "part_0.bin").read_bytes() == bytes([20]) * 5000
    files = json.loads((found.folder / MANIFEST).read_text())["files"]
    assert set(files) == {"zero/part_0.bin", "ema.bin", "state.json"}


def test_nothing_counts_before_the_manifest(root):
    """While files are written, there is neither a manifest nor a folder of the final name."""

    def write(folder):
        (folder / "part.bin").write_bytes(b"x")
        assert folder.name.startswith("step_00000030.") and folder.name.endswith(".tmp")
        assert not (folder / MANIFEST).exists() and not (root / "step_00000030").exists()
        assert newest(root)[0].step == 20

    checkpoint.save(root, 30, {}, STAGE, Mesh(), 10, write)
    assert newest(root)[0].step == 30


def test_a_save_that_fails_leaves_no_files(root):
    """The next save may need the space on the disk."""

    def write(folder):
        (folder / "part.bin").write_bytes(b"x")
        raise RuntimeError("something else went wrong")

    with pytest.raises(RuntimeError, match="something else"):
        checkpoint.save(root, 30, {}, STAGE, Mesh(), 1, write)
    assert newest(root)[0].step == 20 and newest(root)[1] == []
    assert names(root) == ["step_00000010", "step_00000020"]


def _killed_in_a_save(root):
    def write(folder):
        (folder / "part.bin").write_bytes(b"x" * 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save(root, 30, {}, STAGE, Mesh(), 1, write)


def test_files_of_a_killed_save_do_not_count_and_are_removed(root):
    """A folder that no run made stays, whatever its name."""
    process = multiprocessing.get_context("fork").Process(target=_killed_in_a_save, args=(root,))
    process.start()
    process.join()
    (left,) = root.glob("*.tmp")
    shutil.copy(root / "step_00000020" / MANIFEST, left / MANIFEST)  # the name decides, even if there is a manifest
    assert newest(root)[0].step == 20
    foreign = root / "step_00000005.ab12cd34.tmp"
    foreign.mkdir()
    (foreign / "weights.bin").write_bytes(b"mine")
    checkpoint.sweep(root)
    assert names(root) == [foreign.name, "step_00000010", "step_00000020"] and (foreign / "weights.bin").exists()


def _missing(path):
    path.unlink()


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


def _flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def _empty(path):
    path.write_bytes(b"")


HARMS = [_missing, _truncated, _longer, _flipped, _empty]
FILES = ["zero/part_0.bin", "ema.bin", "state.json", MANIFEST]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(root, file, harm):
    harm(root / "step_00000020" / file)
    found, said = newest(root)
    assert found.step == 10 and found.state == {"seconds": 10 / 3}
    assert len(said) == 1 and str(root / "step_00000020") in said[0] and "warning" in said[0] and "\n" not in said[0]
    harm(root / "step_00000010" / "ema.bin")
    found, said = newest(root)
    assert found is None and len(said) == 2


def test_a_changed_manifest_is_never_accepted(root):
    """A checksum covers its own numbers (step, world size, stage) too."""
    path = root / "step_00000020" / MANIFEST
    data = path.read_bytes()
    true = json.loads(data)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x01
        path.write_bytes(bytes(changed))
        found = checkpoint._valid_manifest(path.parent)
        assert found is None or found == true, (place, found)
    for key, value in {"step": 30, "world": 2, "stage": 3, "files": {}}.items():
        path.write_text(json.dumps({**true, key: value}))
        assert newest(root)[0].step == 10, key
    for text in ("[]", "{}", "null", "3", '{"sha256": 1, "files": []}'):
        path.write_text(text)
        assert newest(root)[0].step == 10, text


def test_another_world_size_or_stage_is_refused_by_key(root):
    with pytest.raises(UserError) as error:
        newest(root, mesh=Mesh(0, 1), stage=3)
    assert "cluster.zero_stage=1" in str(error.value) and "cluster.zero_stage=3" in str(error.value)
    save(root, 30, mesh=_Alone(0, 4))
    with pytest.raises(UserError) as error:
        newest(root)
    assert "cluster.workers=4" in str(error.value) and "step_00000030" in str(error.value)
    assert "\n" not in str(error.value)
    assert names(root) == ["step_00000010", "step_00000020", "step_00000030"]  # refused, and nothing was changed


class _Alone(Mesh):
    """The first of several ranks; the others write nothing in this test."""

    def broadcast(self, value):
        return value

    def barrier(self):
        pass


def test_keep_removes_older_checkpoints_and_nothing_else(root):
    others = ["notes.txt", "step_00000005.ab12cd34.tmp", "step_00000007", "step_best", "step_000000001"]
    (root / others[0]).write_text("mine")
    for name in others[1:]:
        (root / name).mkdir()
        (root / name / "weights.bin").write_bytes(b"mine")
    save(root, 30, keep=2)
    assert names(root) == sorted([*others, "step_00000020", "step_00000030"])
    save(root, 40, keep=1)
    assert names(root) == sorted([*others, "step_00000040"])
    assert newest(root)[0].step == 40


@pytest.mark.parametrize("keep", [1, 2])
def test_a_new_checkpoint_is_kept_beside_damaged_later_ones(root, keep):
    """A run that resumed from before damaged checkpoints must not remove its own new ones in their favour."""
    for step in (10, 20):
        _flipped(root / f"step_{step:08d}" / "ema.bin")
    assert newest(root)[0] is None
    save(root, 4, keep=keep)
    assert newest(root)[0].step == 4
    save(root, 8, keep=keep)
    assert newest(root)[0].step == 8
    for step in (10, 20):  # the same steps again
        save(root, step, keep=keep)
        assert newest(root)[0].step == step
    assert len(names(root)) == keep


def test_the_same_step_of_another_attempt_is_replaced(root):
    _truncated(root / "step_00000020" / "ema.bin")
    save(root, 20, content=b"again" * 10)
    found, said = newest(root)
    assert found.step == 20 and not said and (found.folder / "zero" / "part_0.bin").read_bytes() == b"again" * 10
    assert names(root) == ["step_00000010", "step_00000020"]


def _save_on(root, done):
    for step in itertools.count(done + 1):
        save(root, step, keep=2, content=os.urandom(1 << 16) * 16)


def test_a_valid_checkpoint_remains_after_a_kill_at_any_time(tmp_path):
    """Twelve processes, each killed somewhere in a save; the newest valid step never decreases."""
    rng = random.Random(3)
    best = 0
    context = multiprocessing.get_context("fork")
    for number in range(12):
        process = context.Process(target=_save_on, args=(tmp_path / "checkpoints", best))
        process.start()
        until = time.monotonic() + 20
        while not list(tmp_path.glob(f"checkpoints/step_{best + 2:08d}*")) and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found, said = newest(tmp_path / "checkpoints")
        assert found is not None and not said, number
        assert found.step > best and found.state == {"seconds": found.step / 3}
        best = found.step
