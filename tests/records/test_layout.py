"""A set that does not match its manifest, or is not the wanted one, is refused in one line that names file and key."""

import hashlib
import json
import os
from dataclasses import replace

import pytest

from pidscale.config import UserError
from pidscale.files import write_atomic
from pidscale.records.check import check_set, check_wanted, load_manifest, read_index
from pidscale.records.manifest import Manifest
from pidscale.records.stores.folder import Folder


def edit(root, change):
    path = root / "manifest.json"
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


def refused(call, *parts):
    with pytest.raises(UserError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line
    for part in parts:
        assert str(part) in line
    return line


def test_a_manifest_is_read_as_it_was_written(made):
    assert load_manifest(made.root) == made.manifest
    assert load_manifest(str(made.root)).data_hash == made.manifest.data_hash
    assert made.manifest.shape == (2, 40, 24)
    check_wanted(made.manifest, made.root, "darcy", made.manifest.grid)
    check_set(made.manifest, made.root, contents=True)


def test_a_missing_folder_and_a_missing_manifest_are_named(made):
    refused(lambda: load_manifest(made.root / "nowhere"), "nowhere", "data.path")
    (made.root / "manifest.json").unlink()
    refused(lambda: load_manifest(made.root), "manifest.json", "missing")


def test_a_manifest_that_is_not_json_is_named(made):
    (made.root / "manifest.json").write_text("{'version': 1")
    refused(lambda: load_manifest(made.root), "manifest.json", "not JSON")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda m: m.pop("grid"), ["'grid'", "missing"]),
        (lambda m: m.update(colour="red"), ["unknown key 'colour'"]),
        (lambda m: m.update(version=7), ["'version'", "7"]),
        (lambda m: m.update(equation=3), ["'equation'", "str"]),
        (lambda m: m.update(dtype="float16"), ["'dtype'", "float32"]),
        (lambda m: m["channels"][0].update(role="output"), ["channel 0", "'role'"]),
        (lambda m: m["grid"].update(shape=[40]), ["'shape'"]),
        (lambda m: m["normaliser"].update(std=[0.0, 1.0]), ["'std'", "above 0"]),
        (lambda m: m["normaliser"].update(mean=[float("nan"), 1.0]), ["NaN", "not a finite number"]),
        (lambda m: m["normaliser"].update(mean=[True, 1.0]), ["'mean'"]),
        (lambda m: m["params"].update(nu=float("inf")), ["Infinity", "not a finite number"]),
        (lambda m: m["splits"]["train"].update(samples=99), ["split 'train'", "'samples'", "13"]),
        (lambda m: m["splits"]["train"]["shards"][1].update(name="../../etc/passwd"), ["shard 1", "'name'"]),
        (lambda m: m["normaliser"].update(mean=[0.0, 0.0]), ["data_hash"]),
    ],
)
def test_wrong_manifests_are_named(made, change, parts):
    edit(made.root, change)
    refused(lambda: load_manifest(made.root), made.root / "manifest.json", *parts)


def test_a_set_of_another_equation_or_grid_is_named(made):
    refused(lambda: check_wanted(made.manifest, made.root, "burgers"), "'darcy'", "'burgers'", "data.path")
    wanted = {**made.manifest.grid, "shape": [64, 64]}
    refused(lambda: check_wanted(made.manifest, made.root, grid=wanted), "shape", "[40, 24]", "[64, 64]")
    refused(lambda: check_wanted(made.manifest, made.root, grid={"kind": "cell"}), "kind", "node", "cell")


def test_a_missing_shard_is_named(made):
    (made.root / "train-00001.tar").unlink()
    refused(lambda: check_set(made.manifest, made.root), "train-00001.tar", "missing")


def test_a_truncated_tar_is_named(made):
    path = made.root / "train-00002.tar"
    os.truncate(path, path.stat().st_size - 512)
    refused(lambda: check_set(made.manifest, made.root), path, "truncated")


def test_a_wrong_count_and_a_changed_index_are_named(made):
    path = made.root / "test-00000.index.json"
    index = json.loads(path.read_text())
    index["samples"][1]["meta"]["params"]["nu"] = 0.5
    path.write_text(json.dumps(index))
    refused(lambda: check_set(made.manifest, made.root), path, "SHA-256", "repair-index")
    index["samples"].pop()
    path.write_text(json.dumps(index))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = replace(made.manifest.splits["test"].shards[0], index_sha256=sha256)
    refused(lambda: read_index(Folder(made.root), entry), path, "3 samples", "4")


def test_a_flipped_bit_is_found_by_a_full_check(made):
    path = made.root / "train-00000.tar"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    check_set(made.manifest, made.root)
    refused(lambda: check_set(made.manifest, made.root, contents=True), path, "SHA-256")


def test_the_data_hash_covers_what_training_sees(made):
    plain = made.manifest.to_json()
    assert plain["data_hash"] == made.manifest.data_hash
    other = json.loads(json.dumps(plain))
    other["request"] = {"seed": 5}
    assert Manifest.from_json(other).data_hash == made.manifest.data_hash


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def fail(descriptor):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"no space.*a\.json"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
