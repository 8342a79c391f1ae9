"""Checkpoints are written beside the training: a save waits for a copy alone, and all ranks hear of a failure."""

from __future__ import annotations

import errno
import json
import threading

import pytest
import torch
import torch.distributed as dist

from pidscale.config import UserError
from pidscale.engine import checkpoint, sealer
from pidscale.engine import slices as slices_module
from pidscale.engine.checkpoint import MANIFEST
from pidscale.engine.sealer import Retention, Sealer
from pidscale.engine.shelf import FolderShelf
from pidscale.engine.slices import file_name, shared_out
from pidscale.parallel.mesh import Mesh
from pidscale.records.lock import LOCK, held
from tests.ranks import spawn
from tests.sealed import whole


def writer(root, mesh=None):
    return Sealer.open(FolderShelf(root), mesh or Mesh(), 1, Retention(keep=3))


def test_a_save_waits_for_a_copy_alone(tmp_path, monkeypatch):
    go_on = threading.Event()

    def slow(path, parts):
        assert go_on.wait(60)
        return slices_module.write(path, parts)

    monkeypatch.setattr(sealer, "write", slow)
    one = writer(tmp_path)
    values = torch.ones(5)
    state = {"means": {"loss": 1.0}}
    one.save(3, state, [whole("w", values)])
    values += 1  # the training goes on
    state["means"]["loss"] = 2.0
    assert checkpoint.newest_step(tmp_path) is None
    one.check()  # nothing has failed
    go_on.set()
    one.wait()
    found = checkpoint.newest(tmp_path, Mesh())
    assert (
        found.step == 3 and found.state == {"means": {"loss": 1.0}} and found.reader().whole("w").tolist() == [1.0] * 5
    )
    one.save(6, {}, [whole("w", values)])
    one.save(9, {}, [whole("w", values)])  # waits for the one before
    assert checkpoint.newest_step(tmp_path) == 6 or checkpoint.newest_step(tmp_path) == 9
    one.wait()
    one.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step_{step:08d}" for step in (3, 6, 9)]


@pytest.mark.parametrize("how", ["check", "wait", "save"])
def test_a_failure_is_raised_in_the_training(tmp_path, monkeypatch, how):
    def full(path, parts):
        raise OSError(errno.ENOSPC, "full")

    one = writer(tmp_path)
    one.save(3, {}, [whole("w", torch.ones(5))])
    one.wait()
    with monkeypatch.context() as patch:
        patch.setattr(sealer, "write", full)
        one.save(6, {}, [whole("w", torch.ones(5))])
        one.thread.join()
    act = {"check": one.check, "wait": one.wait, "save": lambda: one.save(9, {}, [])}[how]
    with pytest.raises(UserError, match=r"no room on the disk for the files of step 6 .* goes on from step 3"):
        act()
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000003"]
    one.save(9, {}, [whole("w", torch.ones(5))])
    one.wait()
    assert checkpoint.newest_step(tmp_path) == 9


def _parts(rank, world, values):
    return [shared_out("w", values, rank, world)]


def _failing(root, one, rank, values, write):
    """The errors of a save during which a rank's writing fails."""
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(sealer, "write", write)
        one.save(6, {}, _parts(rank, 2, values))
        with pytest.raises((UserError, RuntimeError, ValueError)) as error:
            one.wait()
    return type(error.value).__name__, str(error.value)


def _lives(rank, world, root):
    mesh = Mesh(rank, world)
    one = writer(root / "runs", mesh)
    values = torch.arange(7.0)
    one.save(3, {"seconds": 0.1}, _parts(rank, world, values))
    for _ in range(50):  # the training's own messages, at any speed of the ranks
        total = torch.ones(3)
        dist.all_reduce(total)
        assert total.tolist() == [world] * 3
    one.wait()
    found = {"names": sorted(p.name for p in (root / "runs").rglob("*") if p.is_file())}

    def full(path, parts):
        raise OSError(errno.ENOSPC, "full")

    def broken(path, parts):
        raise ValueError("something else")

    def elsewhere(path, parts):
        return slices_module.write(root / "another host", parts)

    for name, write in {"full": full, "broken": broken, "elsewhere": elsewhere}.items():
        found[name] = _failing(root, one, rank, values, write)
    mesh.barrier()
    found["left"] = sorted(p.name for p in (root / "runs").iterdir())
    one.save(6, {}, _parts(rank, world, values + 1))
    one.wait()
    said = []
    newest = one.newest(said.append)
    found["newest"] = newest.step, newest.state, newest.reader().whole("w").tolist(), list(said)
    mesh.barrier()
    if rank == 0:
        part = root / "runs" / "step_00000006" / file_name(1)
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    mesh.barrier()
    newest = one.newest(said.append)
    found["earlier"] = newest.step, newest.state, newest.reader().whole("w").tolist(), said
    one.close()
    return found


def test_all_ranks_seal_and_fail_together(tmp_path):
    first, second = spawn(_lives, 2, tmp_path)
    root = tmp_path / "runs"
    for found in (first, second):
        assert found["names"] == sorted([MANIFEST, "state.json", file_name(0), file_name(1)])
        assert found["full"][0] == "UserError" and "no room on the disk" in found["full"][1]
        assert "rank-00001" in found["elsewhere"][1] and "storage that all hosts share" in found["elsewhere"][1]
        assert found["elsewhere"][0] == "UserError" and found["left"] == ["step_00000003"]
        assert found["newest"][:3] == (6, {}, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
        assert found["earlier"][:3] == (3, {"seconds": 0.1}, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert first["full"] == second["full"]
    assert second["broken"] == ("ValueError", "something else")
    assert first["broken"] == (
        "RuntimeError",
        "another rank could not write its part of a checkpoint: ValueError('something else')",
    )
    assert first["newest"][3] == [f"{tmp_path / 'runs'}: goes on from step 6"] and second["earlier"][3] == []
    _, warning, resumed = first["earlier"][3]
    assert "step_00000006: rank-00001.safetensors is missing or changed" in warning
    assert resumed == f"{tmp_path / 'runs'}: goes on from step 3"
    manifest = json.loads((root / "step_00000006" / MANIFEST).read_text())
    assert manifest["world"] == 2 and set(manifest["files"]) == {"state.json", file_name(0), file_name(1)}


def test_a_run_that_another_process_has_taken_over_seals_and_removes_nothing(tmp_path):
    """Its driver did not answer for a while, and a driver on another host has taken the folder."""
    root = tmp_path / "checkpoints"
    with held(tmp_path) as owner:
        one = Sealer.open(FolderShelf(root), Mesh(), 1, Retention(keep=1), owner)
        one.save(3, {}, [whole("w", torch.ones(5))])
        one.wait()
        taken = {"host": "other 1234", "process": 7, "token": "theirs", "count": "000000000001"}
        (tmp_path / LOCK).write_text(json.dumps(taken))
        one.save(6, {}, [whole("w", torch.ones(5))])
        with pytest.raises(UserError, match="process 7 on host other has taken it over"):
            one.wait()
        one.close()
    assert [path.name for path in root.iterdir()] == ["step_00000003"]
