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
import torch

from pidscale.config import UserError
from pidscale.engine import checkpoint, sealer
from pidscale.engine import slices as slices_module
from pidscale.engine.checkpoint import MANIFEST
from pidscale.parallel.mesh import Mesh
from tests.sealed import seal, whole, write_old_manifest

PART = "rank-00000.safetensors"


def save(root, step, keep=10, content=None, keep_every=0):
    values = torch.full((1250,), step % 256) if content is None else content
    seal(root, step, {"seconds": step / 3}, [whole("w", values.float()), whole("b", torch.ones(3))], keep, keep_every)


def newest(root):
    said = []
    return checkpoint.newest(root, Mesh(), said.append), said


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
    assert found.reader().whole("w").eq(20).all()
    manifest = json.loads((found.folder / MANIFEST).read_text())
    assert set(manifest["files"]) == {PART, "state.json"} == {p.name for p in found.folder.iterdir()} - {MANIFEST}
    assert {key: manifest[key] for key in ("version", "step", "world", "stage", "space")} == {
        "version": 2,
        "step": 20,
        "world": 1,
        "stage": 1,
        "space": 1,
    }


def test_nothing_counts_before_the_manifest(root, monkeypatch):
    """While files are written, there is neither a manifest nor a folder of the final name."""
    seen = []

    def slow(path, slices):
        folder = path.parent
        assert folder.name.startswith("step_00000030.") and folder.name.endswith(".tmp")
        assert not (folder / MANIFEST).exists() and not (root / "step_00000030").exists()
        seen.append(newest(root)[0].step)
        return slices_module.write(path, slices)

    monkeypatch.setattr(sealer, "write", slow)
    save(root, 30)
    assert seen == [20] and newest(root)[0].step == 30


def test_a_save_that_fails_leaves_no_files(root, monkeypatch):
    """The next save may need the space on the disk."""

    def broken(path, slices):
        path.write_bytes(b"x")
        raise RuntimeError("something else went wrong")

    monkeypatch.setattr(sealer, "write", broken)
    with pytest.raises(RuntimeError, match="something else"):
        save(root, 30, keep=1)
    assert newest(root)[0].step == 20 and newest(root)[1] == []
    assert names(root) == ["step_00000010", "step_00000020"]


def _killed_in_a_save(root):
    def deadly(path, slices):
        path.write_bytes(b"x" * 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    sealer.write = deadly
    save(root, 30)


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
FILES = [PART, "state.json", MANIFEST]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(root, file, harm):
    harm(root / "step_00000020" / file)
    found, said = newest(root)
    assert found.step == 10 and found.state == {"seconds": 10 / 3}
    assert len(said) == 1 and str(root / "step_00000020") in said[0] and "warning" in said[0] and "\n" not in said[0]
    harm(root / "step_00000010" / PART)
    found, said = newest(root)
    assert found is None and len(said) == 3 and "so that the phase starts at step 0" in said[2]


def test_a_changed_manifest_is_never_accepted(root):
    """A checksum covers its own numbers (step, world size, stage) too."""
    path = root / "step_00000020" / MANIFEST
    data = path.read_bytes()
    true = json.loads(data)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x01
        path.write_bytes(bytes(changed))
        found = checkpoint._manifest(path.parent)
        assert found is None or found == true, (place, found)
    for key, value in {"step": 30, "world": 2, "stage": 3, "files": {}}.items():
        path.write_text(json.dumps({**true, key: value}))
        assert newest(root)[0].step == 10, key
    for text in ("[]", "{}", "null", "3", '{"sha256": 1, "files": []}'):
        path.write_text(text)
        assert newest(root)[0].step == 10, text


def test_a_manifest_that_does_not_name_the_files_of_all_ranks_does_not_count(root):
    path = root / "step_00000020" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["world"] = 2
    path.write_text(json.dumps({**manifest, "sha256": checkpoint._own_checksum(manifest)}))
    found, said = newest(root)
    assert found.step == 10 and len(said) == 1


def test_another_version_is_refused_in_one_line(root):
    write_old_manifest(root / "step_00000010")
    assert newest(root)[0].step == 20
    checkpoint.check_resumable(root)
    write_old_manifest(root / "step_00000020")
    for look in (lambda: newest(root), lambda: checkpoint.check_resumable(root)):
        with pytest.raises(UserError, match=r"step_00000020: .* version 1, which pidscale 0\.1 reads; .*run\.name$"):
            look()
    path = root / "step_00000020" / MANIFEST
    manifest = {**json.loads(path.read_text()), "version": 3}
    path.write_text(json.dumps({**manifest, "sha256": checkpoint._own_checksum(manifest)}))
    with pytest.raises(UserError, match="a checkpoint of version 3, and this pidscale reads version 2"):
        newest(root)


@pytest.mark.parametrize("keep_every, kept", [(0, [70]), (20, [20, 40, 60, 70]), (30, [30, 60, 70])])
def test_checkpoints_of_every_so_many_steps_stay(tmp_path, keep_every, kept):
    for step in range(10, 80, 10):
        save(tmp_path / "checkpoints", step, keep=1, keep_every=keep_every)
    assert names(tmp_path / "checkpoints") == [f"step_{step:08d}" for step in kept]


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
        _flipped(root / f"step_{step:08d}" / PART)
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
    _truncated(root / "step_00000020" / PART)
    save(root, 20, content=torch.full((7,), 0.5))
    found, said = newest(root)
    assert found.step == 20 and not said and found.reader().whole("w").tolist() == [0.5] * 7
    assert names(root) == ["step_00000010", "step_00000020"]


def _save_on(root, done):
    for step in itertools.count(done + 1):
        save(root, step, keep=2, content=torch.rand(1 << 18))


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


@pytest.mark.parametrize(
    "wrong",
    [{"step": "x"}, {"step": 77}, {"world": 0}, {"world": True}, {"world": 10**9}, {"world": -1}, {"files": [1]}],
    ids=str,
)
def test_a_manifest_of_wrong_contents_and_true_checksum_does_not_count(root, wrong):
    path = root / "step_00000020" / MANIFEST
    manifest = json.loads(path.read_text()) | wrong
    path.write_text(json.dumps({**manifest, "sha256": checkpoint._own_checksum(manifest)}))
    began = time.monotonic()
    found, said = newest(root)
    assert found.step == 10 and len(said) == 1 and time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["{{{", "[1]", "[" * 10**5], ids=["not JSON", "a list", "too deep"])
def test_a_state_or_a_manifest_that_is_none_does_not_count(root, text):
    folder = root / "step_00000020"
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / "state.json").write_text(text)
    entry = {"bytes": len(text), "sha256": checkpoint.file_sha256(folder / "state.json")}
    manifest["files"]["state.json"] = entry
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": checkpoint._own_checksum(manifest)}))
    assert newest(root)[0].step == 10
    (folder / MANIFEST).write_text(text)
    assert newest(root)[0].step == 10


def test_folders_with_other_digits_are_no_checkpoints(root):
    for name in ("step_⁵⁵⁵⁵⁵⁵⁵⁵", "step_٠٠٠٠٠٠٩٩"):
        shutil.copytree(root / "step_00000010", root / name)
    assert newest(root)[0].step == 20 and checkpoint.newest_step(root) == 20
