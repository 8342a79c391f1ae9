"""Bad samples raise an error, or are omitted by one list that every rank and every attempt uses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from pidscale.config import UserError
from pidscale.dataset.problem import open_problem
from pidscale.parallel.mesh import Mesh
from pidscale.records.feed import Feed
from pidscale.run.bad_samples import LIST, settled
from tests import small
from tests.ranks import spawn

BAD = [3, 17, 18]  # of the train split, shards of 16


def damage(shards, numbers=BAD):
    """Flip a bit in the fields of samples of the train split."""
    for number in numbers:
        shard, position = divmod(number, 16)
        index = json.loads((shards / f"train-{shard:05d}.index.json").read_text())
        path = shards / f"train-{shard:05d}.tar"
        data = bytearray(path.read_bytes())
        data[index["samples"][position]["fields"]["array"] + 100] ^= 8
        path.write_bytes(data)


@pytest.fixture
def damaged(small_shards, tmp_path):
    shards = tmp_path / "set"
    shutil.copytree(small_shards, shards)
    damage(shards)
    return shards


def opened(shards, folder, **data):
    settings = small.settings(shards, folder, data={"path": str(shards), **data})
    return open_problem(settings.pde, settings.data)


def _settled(rank, world, shards, folder):
    said: list[str] = []
    mesh = Mesh(rank, world)
    problem = settled(opened(shards, folder, on_bad_sample="skip"), folder / "run", mesh, said.append)
    feed = Feed(problem.shards("train"), 0, 6, rank, world)
    ids = [problem.shards("train").stored(n) for step in range(15) for n in feed.ids(step).tolist()]
    batches = torch.cat([feed.batch(step).fields_BCYX.clone() for step in range(15)])
    feed.close()
    return problem.omitted, said, ids, float(batches.double().sum())


@pytest.mark.parametrize("world", [1, 2])
def test_every_rank_omits_the_same_bad_samples(damaged, tmp_path, world):
    results = spawn(_settled, world, damaged, tmp_path, timeout=200)
    assert all(without == {"train": BAD, "test": []} for without, _, _, _ in results)
    (line,) = results[0][1]
    assert "3 of 48 train samples are bad and omitted" in line and "fails its checksum" in line and LIST in line
    assert all(not said for _, said, _, _ in results[1:])
    seen = [n for _, _, ids, _ in results for n in ids]
    assert len(seen) == 90 and set(seen) == set(range(48)) - set(BAD)  # batches are full, and two epochs complete
    assert sorted(seen) == sorted([n for n in range(48) if n not in BAD] * 2)


def test_the_list_is_stored_with_the_run(damaged, tmp_path):
    said: list[str] = []
    folder = tmp_path / "run"
    first = settled(opened(damaged, tmp_path, on_bad_sample="skip"), folder, Mesh(), said.append)
    damage(damaged, [3])  # undo the damage
    second = settled(opened(damaged, tmp_path, on_bad_sample="skip"), folder, Mesh(), said.append)
    assert second.omitted == first.omitted == {"train": BAD, "test": []} and len(said) == 1
    with pytest.raises(UserError, match=rf"{LIST}: this run omits bad samples; .*data\.on_bad_sample=skip"):
        settled(opened(damaged, tmp_path), folder, Mesh(), said.append)
    held = json.loads((folder / LIST).read_text())
    (folder / LIST).write_text(json.dumps(held | {"data_hash": "0"}))
    with pytest.raises(UserError, match="a list for another set"):
        settled(opened(damaged, tmp_path, on_bad_sample="skip"), folder, Mesh(), said.append)


def test_an_empty_list_is_ignored_and_a_wrong_list_is_named(small_shards, tmp_path):
    folder = tmp_path / "run"
    settled(opened(small_shards, tmp_path, on_bad_sample="skip"), folder, Mesh(), print)
    assert settled(opened(small_shards, tmp_path), folder, Mesh(), print).omitted == {}  # nothing was left out
    own = json.loads((folder / LIST).read_text())
    for bad in (
        None,
        5,
        {"train": ["x"]},
        {"train": {"999": ""}},
        {"train": {str(n): "" for n in range(48)}},
        {"other": {}},
    ):
        (folder / LIST).write_text(json.dumps(own | {"bad": bad}))
        with pytest.raises(UserError, match=rf"{LIST}: not a list of bad samples; delete it"):
            settled(opened(small_shards, tmp_path, on_bad_sample="skip"), folder, Mesh(), print)


def test_lost_and_truncated_files_cost_only_their_samples(small_shards, tmp_path):
    shards = tmp_path / "set"
    shutil.copytree(small_shards, shards)
    (shards / "train-00001.tar").unlink()
    (shards / "test-00000.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"test'? can be read|no sample of split 'test'"):
        settled(opened(shards, tmp_path, on_bad_sample="skip"), tmp_path / "a", Mesh(), print)
    shutil.copy(small_shards / "test-00000.index.json", shards)
    with open(shards / "train-00002.tar", "r+b") as tar:
        tar.truncate(30000)
    problem = settled(opened(shards, tmp_path, on_bad_sample="skip"), tmp_path / "b", Mesh(), lambda line: None)
    left_out = set(problem.omitted["train"])
    assert left_out >= set(range(16, 32)) and 47 in left_out and 32 not in left_out
    train = problem.shards("train")
    assert torch.equal(
        torch.from_numpy(train.read(range(len(train)))),
        torch.from_numpy(
            opened(small_shards, tmp_path).shards("train").read([n for n in range(48) if n not in left_out])
        ),
    )


def test_without_skip_a_bad_sample_is_an_error_that_names_it(damaged, tmp_path):
    problem = settled(opened(damaged, tmp_path), tmp_path / "run", Mesh(), print)
    feed = Feed(problem.shards("train"), 0, 6, 0, 1)
    with pytest.raises(UserError, match=r"train-0000\d\.tar: sample 000000\d\d, channel .* fails its checksum"):
        for step in range(8):
            feed.batch(step)
    assert not (tmp_path / "run").exists()


def _other_set(rank, world, shards, folder):
    problem = opened(shards, folder)
    if rank:
        problem = replace(
            problem, manifest=replace(problem.manifest, params={**problem.manifest.params, "source": 2.0})
        )
    try:
        settled(problem, folder / "run", Mesh(rank, world), print)
    except UserError as error:
        return str(error)


def test_hosts_with_different_sets_stop_together(small_shards, tmp_path):
    said = spawn(_other_set, 2, small_shards, tmp_path, timeout=200)
    assert all("all hosts must see the same set" in line for line in said)
