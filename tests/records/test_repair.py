"""A damaged index is written again from its tar, to the same bytes; one that cannot be repaired is named and not changed."""

import json
import os

import pytest

from pidscale.config import UserError
from pidscale.records.json_checks import canonical
from pidscale.records.lock import held
from pidscale.records.repair import planned_shards, repair_indices
from pidscale.records.write import finished_shard

INDEX = "train-00001.index.json"
REQUEST = {"samples": {"train": 13}, "samples_per_shard": 5}


def contents(root):
    return {p.name: p.read_bytes() for p in root.iterdir()}


def edit(path, change):
    plain = json.loads(path.read_text())
    change(plain)
    path.write_bytes(canonical(plain) + b"\n")


def only(left, *parts):
    (line,) = left
    assert "\n" not in line and not [part for part in parts if part not in line], line


@pytest.fixture
def unfinished(made):
    """The train split of a set whose maker was killed before it wrote the manifest."""
    (made.root / "manifest.json").unlink()
    for path in made.root.glob("test-*"):
        path.unlink()
    (made.root / "request.json").write_bytes(canonical(REQUEST))
    return made.root


@pytest.mark.parametrize("kind", ["missing", "stale", "not JSON", "a link to nowhere"])
def test_an_index_is_restored_to_the_same_bytes(made, tmp_path, kind):
    before = contents(made.root)
    path = made.root / INDEX
    if kind == "stale":
        edit(path, lambda plain: plain["samples"][2]["meta"].update(seed=0))
    elif kind == "not JSON":
        path.write_bytes(before[INDEX][:100])
    else:
        path.unlink()
    if kind == "a link to nowhere":
        path.symlink_to(tmp_path / "elsewhere")
    done = repair_indices(made.root)
    assert (done.true, done.written, done.left) == (3, [INDEX], [])
    assert contents(made.root) == before and not path.is_symlink()


def test_intact_indices_are_not_touched(made):
    times = {p: p.stat().st_mtime_ns for p in made.root.iterdir()}
    seen = []
    done = repair_indices(made.root, progress=lambda n, total: seen.append((n, total)))
    assert (done.true, done.written, done.left) == (4, [], []) and seen[-1] == (4, 4)
    assert {p: p.stat().st_mtime_ns for p in made.root.iterdir()} == times


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "flipped link"])
def test_no_index_is_made_of_a_tar_that_the_manifest_does_not_list(made, tmp_path, damage):
    tar = made.root / "train-00001.tar"
    (made.root / INDEX).write_bytes(b"stale")
    if "flipped" in damage:
        data = bytearray(tar.read_bytes())
        data[5000] ^= 1
        tar.write_bytes(data)
    elif damage == "cut":
        os.truncate(tar, 6000)
    if damage in ("gone", "flipped link"):
        tar.rename(tmp_path / "t")
    if damage == "flipped link":
        tar.symlink_to(tmp_path / "t")
    words = {"flipped": "SHA-256", "cut": "6000 bytes", "gone": "missing", "flipped link": "SHA-256"}
    done = repair_indices(made.root)
    only(done.left, str(tar), words[damage])
    assert done.written == [] and (made.root / INDEX).read_bytes() == b"stale"


def test_an_index_that_the_manifest_does_not_list_is_not_written(made):
    """The hash of the index in the manifest is wrong, so the old file stays."""
    edit(made.root / "manifest.json", lambda m: m["splits"]["train"]["shards"][1].update(index_sha256="0" * 64))
    plain = json.loads((made.root / "manifest.json").read_text())
    plain["data_hash"] = _hash_of(plain)
    (made.root / "manifest.json").write_text(json.dumps(plain))
    before = contents(made.root)
    done = repair_indices(made.root)
    only(done.left, INDEX, "not changed")
    assert contents(made.root) == before


def _hash_of(plain):
    import hashlib

    return hashlib.sha256(
        canonical({k: v for k, v in plain.items() if k not in ("truth_residual", "request", "data_hash")})
    ).hexdigest()


def test_indices_of_an_unfinished_set_are_repaired(unfinished):
    before = contents(unfinished)
    (unfinished / INDEX).unlink()
    edit(unfinished / "train-00000.index.json", lambda plain: plain["samples"][0]["meta"].update(seed=9))
    assert finished_shard(unfinished, "train", 1, 5) is None
    done = repair_indices(unfinished)
    assert (done.true, done.written, done.left) == (1, ["train-00000.index.json", INDEX], [])
    assert contents(unfinished) == before and finished_shard(unfinished, "train", 1, 5) is not None


@pytest.mark.parametrize("kind", ["cut at a sample", "cut in a sample", "flipped", "other samples", "stray"])
def test_damaged_tars_of_an_unfinished_set_get_no_index(unfinished, kind):
    tar = unfinished / "train-00001.tar"
    listed = json.loads((unfinished / INDEX).read_text())["samples"]
    if kind != "flipped":
        (unfinished / INDEX).unlink()
    if kind == "cut at a sample":
        os.truncate(tar, listed[4]["fields"]["offset"] - 512)
    elif kind == "cut in a sample":
        os.truncate(tar, listed[4]["fields"]["offset"] + 700)
    elif kind == "flipped":
        data = bytearray(tar.read_bytes())
        data[5000] ^= 1
        tar.write_bytes(data)
    elif kind == "other samples":
        tar.write_bytes((unfinished / "train-00000.tar").read_bytes())
    else:
        tar.rename(unfinished / "valid-00000.tar")
    before = contents(unfinished)
    done = repair_indices(unfinished)
    name = "valid-00000.tar" if kind == "stray" else "train-00001.tar"
    words = {"flipped": "differs from its index", "other samples": "00000000 to 00000004", "stray": "request.json"}
    only(done.left, name, words.get(kind, "whole shard"))
    assert contents(unfinished) == before and done.written == []


def test_a_folder_that_is_not_a_set_is_refused_in_one_line(made, tmp_path):
    (tmp_path / "empty").mkdir()
    (made.root / "sub").mkdir()
    for path, words in (
        ("s3://bucket/set", "s3://bucket/set: an index can only be written to a folder"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "empty", "neither manifest.json nor request.json"),
    ):
        with pytest.raises(UserError, match=words) as error:
            repair_indices(path)
        assert "\n" not in str(error.value)
    with held(made.root) as alone, pytest.raises(UserError, match="another run"):
        assert alone
        repair_indices(made.root)


@pytest.mark.parametrize(
    "request_",
    [
        {"samples": {"train": 10**12}, "samples_per_shard": 1},
        {"samples": {"train": -5}, "samples_per_shard": 1},
        {"samples": {"../x": 5}, "samples_per_shard": 1},
        {"samples": {"train": 5}, "samples_per_shard": 0},
        {"samples": {"train": 5}},
        [],
    ],
)
def test_malformed_requests_are_named(request_):
    with pytest.raises(UserError, match=r"request\.json: .*restore the file"):
        planned_shards(request_, "request.json")
