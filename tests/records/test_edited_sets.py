"""Edits of a set's JSON under true hashes are refused in one line that names them; opening a set reads no index."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pidscale.config import UserError
from pidscale.records.format import shard_name
from pidscale.records.json_checks import canonical
from pidscale.records.manifest import Split
from pidscale.records.read import ShardSet
from pidscale.records.stores.folder import Folder

MANIFEST = "manifest.json"
INDEX = "train-00001.index.json"  # samples 5 to 9
UNHASHED = ("truth_residual", "request", "data_hash")


def nested(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


def edited(root: Path, edit: Callable[[Any, Any], object]) -> None:
    """Edit the manifest and an index, and make their hashes true; the string @large stands for a number."""
    manifest = json.loads((root / MANIFEST).read_text())
    index = json.loads((root / INDEX).read_text())
    edit(manifest, index)
    text = json.dumps(index).encode()
    (root / INDEX).write_bytes(text)
    for entry in manifest["splits"]["train"]["shards"]:
        if entry["name"] == "train-00001.tar":
            entry["index_sha256"] = hashlib.sha256(text).hexdigest()
    seen = {key: value for key, value in manifest.items() if key not in UNHASHED}
    manifest["data_hash"] = hashlib.sha256(canonical(seen)).hexdigest()
    (root / MANIFEST).write_text(json.dumps(manifest).replace('"@large"', "1e400"))


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda m, i: m.update(params=nested(100)), "nested too deeply"),
        (lambda m, i: m.update({"a\nb": 1}), r"unknown key 'a\\nb'"),
        (lambda m, i: m.update(equation="a\nb"), "printable"),
        (lambda m, i: m["splits"].update({"a\nb": m["splits"]["test"]}), r"'splits' must be .*found 'a\\nb'"),
        (lambda m, i: m["splits"]["train"].update(seeds=[0, 10**400]), "'seeds'"),
        (lambda m, i: m["splits"]["train"]["shards"][0].update(samples=True), "'samples' must be int, found bool"),
        (lambda m, i: m["splits"]["train"]["shards"][0].update(samples=10**18), "'samples' must be from 1 to"),
        (lambda m, i: m["splits"]["train"]["shards"][0].update(bytes=2**70), "'bytes' must be"),
        (lambda m, i: m["splits"]["train"]["shards"].reverse(), "shard 0: key 'name' must be train-00000.tar"),
        (lambda m, i: m["splits"].update(train=m["splits"]["test"]), "'name' must be train-00000.tar"),
        (lambda m, i: m["grid"].update(shape=[2**40, 1]), "fits a member of a tar"),
        (lambda m, i: m["grid"].update(shape=[2000, 1]), "'bytes' must be at least 64000, for 4 samples"),
        (lambda m, i: m["grid"].update(shape=[0, 6]), "each at least 1"),
        (lambda m, i: m.update(channels=[], normaliser={"mean": [], "std": []}), "'channels'"),
        (lambda m, i: m["normaliser"].update(mean=["@large", 0.0]), "'1e400' is not a finite number"),
        (lambda m, i: i.update(version=2), "not an index of version 1 of train-00001.tar"),
        (lambda m, i: i.update(shard="train-00000.tar"), "not an index of version 1 of train-00001.tar"),
        (lambda m, i: i["samples"][1].update(key="a\nb"), r"sample 00000006: is listed there as 'a\\nb'"),
        (lambda m, i: i["samples"].reverse(), "sample 00000005: is listed there as '00000009'"),
        (lambda m, i: i["samples"][0].update(shape="a\nb"), r"sample 00000005: has shape 'a\\nb'"),
        (lambda m, i: i["samples"][0]["fields"].update(array="640"), "lies outside"),
        (lambda m, i: i["samples"][0]["fields"].update(array=640.5), "lies outside"),
        (lambda m, i: i["samples"][0]["fields"].update(array=10**400), "lies outside"),
        (lambda m, i: i["samples"][0]["checksums"][0].__setitem__(0, "x"), "sample 00000005: .*base 16"),
        (lambda m, i: i["samples"][0]["meta"].update(params=[1]), "params that are not JSON objects"),
        (lambda m, i: i["samples"][0]["meta"]["params"].update(nu=10**400), "no number for its parameter 'nu'"),
        (lambda m, i: i["samples"][0]["meta"]["residual"].update(l2=float("inf")), "'Infinity' is not a finite"),
    ],
)
def test_each_edit_under_true_hashes_is_named(
    made: SimpleNamespace, edit: Callable[[Any, Any], object], part: str
) -> None:
    edited(made.root, edit)
    with pytest.raises(UserError, match=part) as error:
        shards = ShardSet(made.root, "train")
        for n in range(len(shards)):
            shards.read([n])
        shards.params(range(len(shards)), ["nu"])
    said = str(error.value)
    assert str(made.root) in said and len(said.splitlines()) == 1 and said.isprintable()


def test_a_large_set_opens_without_reading_an_index(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made.root
    entry = made.manifest.splits["train"].shards[0]
    entries = [replace(entry, name=shard_name("train", n)) for n in range(10_000)]
    for one in entries[3:]:
        (root / one.name).hardlink_to(root / entry.name)
        (root / one.name.replace(".tar", ".index.json")).touch()
    for one in entries[1:3]:
        (root / one.name).write_bytes((root / entry.name).read_bytes())
    whole = Split((0, 50_000), 50_000, tuple(entries))
    manifest = replace(made.manifest, splits={**made.manifest.splits, "train": whole})
    (root / MANIFEST).write_text(json.dumps(manifest.to_json()))
    plain = Folder.read
    read: list[str] = []
    monkeypatch.setattr(Folder, "read", lambda self, name: read.append(name) or plain(self, name))
    began = time.process_time()
    assert len(ShardSet(root, "train")) == 50_000
    assert read == [MANIFEST] and time.process_time() - began < 5  # half a second where nothing else runs
