"""Checkpoints in an object store: written by all ranks, fetched by each host, and never there in part."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from pidscale.config import UserError
from pidscale.engine.checkpoint import MANIFEST, STATE
from pidscale.engine.sealer import Retention, Sealer
from pidscale.engine.shelf import StoreShelf
from pidscale.engine.slices import file_name, shared_out
from pidscale.parallel.mesh import Mesh
from pidscale.records.stores.objects import Objects
from tests import s3
from tests.ranks import spawn
from tests.sealed import whole

NUMBERS = itertools.count()


@pytest.fixture
def address(server):
    server.line.mend()
    return f"s3://{s3.BUCKET}/checkpoints{next(NUMBERS)}"


def shelf_of(address: str, folder: Path, patience: float = 30.0) -> StoreShelf:
    return StoreShelf(Objects(address, patience, "run.folder"), folder)


def seal(shelf: StoreShelf, step: int, values: torch.Tensor, keep: int = 10, keep_every: int = 0) -> None:
    sealer = Sealer.open(shelf, Mesh(), 1, Retention(keep, keep_every))
    sealer.save(step, {"step": step}, [whole("w", values)])
    sealer.wait()
    sealer.close()


def _ranks(rank, world, address, folder):
    mesh = Mesh(rank, world)
    one = Sealer.open(shelf_of(address, folder), mesh, 1, Retention(keep=3))
    values = torch.arange(7.0)
    for step in (3, 6):
        one.save(step, {"seconds": 0.1}, [shared_out("w", values + step, rank, world)])
    one.wait()
    here = sorted(path.name for path in folder.rglob("rank*"))
    other = Sealer.open(shelf_of(address, folder.parent / "another host"), mesh, 1, Retention(keep=3))
    newest = other.newest()
    found = newest.step, newest.state, newest.world, newest.reader().whole("w").tolist(), here
    other.save(9, {}, [shared_out("w", values, rank, world)])
    other.wait()
    one.close()
    other.close()
    return found, sorted(path.name for path in (folder.parent / "another host").rglob("rank*"))


def test_all_ranks_write_and_another_host_reads(address, tmp_path):
    for found, left in spawn(_ranks, 2, address, tmp_path / "own"):
        assert found == (6, {"seconds": 0.1}, 2, [6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0], [])
        assert left == []  # what was fetched is removed once the next checkpoint is written
    names = sorted(Objects(address).listed())
    assert len(names) == 3 * 4 and [name for name in names if name.endswith(MANIFEST)] == [
        f"step_0000000{step}/{MANIFEST}" for step in (3, 6, 9)
    ]


def test_a_damaged_or_missing_file_leads_to_the_checkpoint_before(address, tmp_path):
    objects = Objects(address)
    shelf = shelf_of(address, tmp_path)
    for damage in ("rank", STATE, MANIFEST, "missing"):
        for step in (3, 6):
            seal(shelf, step, torch.full((5,), float(step)))
        name = next(n for n in objects.listed("step_00000006") if damage in n or damage == "missing")
        if damage == "missing":
            objects.remove([n for n in objects.listed("step_00000006") if "rank" in n])
        else:
            objects.write(name, (objects.content(name) or b"")[:-1] + b"?")
        said: list[str] = []
        found = shelf_of(address, tmp_path / damage).newest(Mesh(), said.append)
        assert found is not None and found.step == 3 and found.state == {"step": 3}
        assert found.reader().whole("w").tolist() == [3.0] * 5
        assert len(said) == 1 and "step_00000006: " in said[0] and "missing or changed" in said[0]
        assert shelf.newest_step() == 6
        shelf.check_resumable()


def test_what_a_killed_attempt_left_is_removed_and_nothing_else(address, tmp_path):
    shelf = shelf_of(address, tmp_path)
    seal(shelf, 3, torch.ones(5))
    kept = set(shelf.objects.listed())
    strange = {"step_00000003/notes.txt", "other/file"}
    left = {f"step_00000003/0123abcd/{file_name(0)}", f"step_00000006/89abcdef/{STATE}"}
    for name in strange | left:
        shelf.objects.write(name, b"x")
    shelf.sweep()
    assert set(shelf.objects.listed()) == kept | strange
    assert shelf.newest(Mesh()).step == 3


def test_older_ones_are_removed(address, tmp_path):
    shelf = shelf_of(address, tmp_path)
    for step in range(2, 16, 2):
        seal(shelf, step, torch.ones(5), keep=2, keep_every=6)
    steps = sorted(int(name[5:13]) for name in shelf.objects.listed() if name.endswith(MANIFEST))
    assert steps == [6, 12, 14] and len(shelf.objects.listed()) == 9
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_store_that_goes_away_ends_the_save_and_the_earlier_checkpoint_stays(server, address, tmp_path):
    shelf = shelf_of(address, tmp_path, patience=1.0)
    seal(shelf, 3, torch.ones(5))
    one = Sealer.open(shelf, Mesh(), 1, Retention(keep=3))
    one.save(6, {}, [whole("w", torch.ones(5))])
    one.wait()
    server.line.cut()
    with pytest.raises(UserError, match=r"the store is unavailable .* data.patience=1 s are over"):
        one.save(9, {}, [whole("w", torch.ones(5))])
        one.wait()
    one.close()
    server.line.mend()
    assert shelf.newest(Mesh()).step == 6


@pytest.mark.parametrize("attempt", [None, 3, "../../..", "0123ABCD", "0123abc\n"])
def test_a_manifest_that_leads_elsewhere_is_damaged(address, tmp_path, attempt):
    shelf = shelf_of(address, tmp_path)
    seal(shelf, 3, torch.ones(5))
    name = f"step_00000003/{MANIFEST}"
    manifest = json.loads(shelf.objects.content(name))
    manifest["attempt"] = attempt
    from pidscale.engine.checkpoint import _own_checksum

    del manifest["sha256"]
    shelf.objects.write(name, json.dumps({**manifest, "sha256": _own_checksum(manifest)}).encode())
    said: list[str] = []
    assert shelf.newest(Mesh(), said.append) is None and "manifest.json is missing or changed" in said[0]
    assert "no checkpoint is complete and unchanged, so that the phase starts at step 0" in said[1] and len(said) == 2
