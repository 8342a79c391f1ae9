"""Whatever happens to its files, a set is read correctly or refused in one line that names one of them."""

import json
import time
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.damage import MANIFEST, NASTY, rehash, spelled
from pidscale.records.check import load_manifest
from pidscale.records.format import shard_name
from pidscale.records.manifest import Split
from pidscale.records.read import ShardSet
from pidscale.records.stores.folder import Folder

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
EDITS = st.tuples(
    st.sampled_from(["set", "delete", "insert"]), st.lists(st.integers(0, 50), min_size=1, max_size=8), JSON
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return fuzz.Bench(tmp_path_factory.mktemp("fuzz"))


def test_randomly_damaged_sets_are_read_correctly_or_refused():
    counts, broken = fuzz.run(2200, seed=7)
    assert not broken, broken[:3]
    assert sum(found.total() for found in counts.values()) == 2200 and len(counts) == len(fuzz.kinds()) + 1
    assert all(found["refused"] for found in counts.values())
    for kind in ("flip a bit", "edit index and hash", "edit data and hashes", "while it is open"):
        assert counts[kind]["right"], f"{kind}: none was read to its end"


def test_the_fuzzer_notices_what_a_reader_without_checks_accepts(monkeypatch):
    monkeypatch.setattr(fuzz, "ShardSet", partial(ShardSet, verify=False))
    counts, _ = fuzz.run(400, seed=7)
    assert counts["swap tars"]["wrong"] > 5 and counts["flip a bit"]["wrong"]


def test_the_fuzzer_ends_a_case_that_hangs():
    with pytest.raises(fuzz.Hung), fuzz.limits(seconds=0.1):
        time.sleep(60)


def change(tree, edit):
    """Apply an edit at the place to which its steps lead; each step chooses one of the existing keys."""
    kind, steps, value = edit
    for step in steps:
        if not isinstance(tree, (dict, list)) or not tree:
            return
        key = sorted(tree)[step % len(tree)] if isinstance(tree, dict) else step % len(tree)
        holder, tree = tree, tree[key]
    if kind == "delete":
        del holder[key]
    elif kind == "insert" and isinstance(holder, list):
        holder.insert(key, value)
    elif kind == "insert":
        holder[f"{key}+"] = value
    else:
        holder[key] = value


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    of_manifest=st.lists(EDITS, max_size=2),
    of_index=st.lists(EDITS, max_size=2),
    which=st.integers(0, 4),
    true=st.booleans(),
)
def test_edited_json_is_refused_or_read_as_edited(bench, of_manifest, of_index, which, true):
    victim = bench.victim()
    name = victim.indices()[which]
    index = json.loads(victim.files[name])
    manifest = json.loads(victim.files[MANIFEST])
    for one in of_index:
        change(index, one)
    for one in of_manifest:
        change(manifest, one)
    victim.files[name] = spelled(index) if of_index else victim.files[name]
    if true:
        rehash(victim, manifest)
    else:
        victim.files[MANIFEST] = spelled(manifest)
    bench.lay(victim)
    with fuzz.limits():
        outcome, said = bench.judge(victim)
    assert outcome in ("right", "refused"), said


def deep(levels):
    tree = {}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda m, i: m.update(params=deep(600)), "nested too deeply"),
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
        (lambda m, i: m["grid"].update(shape=[2000, 1]), "'bytes' must be at least 32000, for 2 samples"),
        (lambda m, i: m["grid"].update(shape=[0, 6]), "each at least 1"),
        (lambda m, i: m.update(channels=[], normaliser={"mean": [], "std": []}), "'channels'"),
        (lambda m, i: m["normaliser"].update(mean=["@large", 0.0]), "'1e400' is not a finite number"),
        (lambda m, i: i.update(version=2), "not an index of version 1 of train-00001.tar"),
        (lambda m, i: i.update(shard="train-00000.tar"), "not an index of version 1 of train-00001.tar"),
        (lambda m, i: i["samples"][1].update(key="a\nb"), r"sample 00000004: is listed there as 'a\\nb'"),
        (lambda m, i: i["samples"].reverse(), "sample 00000003: is listed there as '00000005'"),
        (lambda m, i: i["samples"][0].update(shape="a\nb"), r"sample 00000003: has shape 'a\\nb'"),
        (lambda m, i: i["samples"][0]["fields"].update(array="640"), "lies outside"),
        (lambda m, i: i["samples"][0]["fields"].update(array=640.5), "lies outside"),
        (lambda m, i: i["samples"][0]["fields"].update(array=10**400), "lies outside"),
        (lambda m, i: i["samples"][0]["checksums"][0].__setitem__(0, "x"), "sample 00000003: .*base 16"),
        (lambda m, i: i["samples"][0]["meta"].update(params=[1]), "params that are not JSON objects"),
        (lambda m, i: i["samples"][0]["meta"]["params"].update(nu=10**400), "no number for its parameter 'nu'"),
        (lambda m, i: i["samples"][0]["meta"]["residual"].update(l2=float("inf")), "'Infinity' is not a finite"),
    ],
)
def test_each_edit_with_matching_hashes_is_named(bench, edit, part):
    victim = bench.victim()
    manifest = json.loads(victim.files[MANIFEST])
    index = json.loads(victim.files["train-00001.index.json"])
    edit(manifest, index)
    victim.files["train-00001.index.json"] = spelled(index)
    rehash(victim, manifest)
    bench.lay(victim)
    with fuzz.limits():
        outcome, said = bench.judge(victim)
    assert outcome == "refused", said
    with pytest.raises(fuzz.UserError, match=part):
        shards = ShardSet(bench.root, "train")
        shards.params(range(len(shards)), ["nu"])


def test_a_large_set_opens_without_reading_an_index(bench, monkeypatch):
    bench.lay(bench.victim())
    manifest = load_manifest(bench.root)
    read = []
    entry = manifest.splits["train"].shards[0]
    entries = [replace(entry, name=shard_name("train", n)) for n in range(10_000)]
    for one in entries[3:]:
        (bench.root / one.name).hardlink_to(bench.root / entry.name)
        (bench.root / one.name.replace(".tar", ".index.json")).touch()
    for one in entries[1:3]:
        (bench.root / one.name).write_bytes(bench.files[entry.name])
    train = Split((0, 30_000), 30_000, tuple(entries))
    manifest = replace(manifest, splits={**manifest.splits, "train": train})
    (bench.root / MANIFEST).write_text(json.dumps(manifest.to_json()))
    plain = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, name: read.append(name) or plain(self, name))
    began = time.process_time()
    assert len(ShardSet(bench.root, "train")) == 30_000
    assert read == [MANIFEST] and time.process_time() - began < 5  # about 0.5 s on an idle machine
