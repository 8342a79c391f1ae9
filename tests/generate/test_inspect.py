"""What is wrong with a set is named, all of it, one line each; a true set has no finding."""

import json
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from launch.entry import settings_from
from pidscale.generate.card import card, how_to_finish
from pidscale.generate.inspect import verify
from pidscale.records import write
from pidscale.records.check import load_manifest
from pidscale.records.layout import Manifest, canonical, file_sha256, index_name, sample_key, write_atomic
from pidscale.records.read import ShardSet
from pidscale.records.repair import repair_indices
from pidscale.records.write import write_shard
from tests.generate import foreign
from tests.generate.foreign import converted

TAR, INDEX = "train-00001.tar", "train-00001.index.json"  # samples 16 to 31 of 48


@pytest.fixture
def copy(heat_shards, tmp_path):
    return shutil.copytree(heat_shards, tmp_path / "heat")


def put(root, manifest, **changes):
    """Write a manifest with these values, with a data hash that fits."""
    plain = replace(manifest, **changes).to_json()
    write_atomic(root / "manifest.json", json.dumps(plain).encode())
    return Manifest.from_json(json.loads(json.dumps(plain)))


def rehash(root):
    """Make a manifest say what the files are now."""
    manifest = load_manifest(root)
    splits = {}
    for name, split in manifest.splits.items():
        entries = [
            replace(
                e,
                bytes=(root / e.name).stat().st_size,
                sha256=file_sha256(root / e.name),
                index_sha256=file_sha256(root / index_name(e.name)),
            )
            for e in split.shards
        ]
        splits[name] = replace(split, shards=tuple(entries))
    put(root, manifest, splits=splits)


def rewritten(root, change):
    """Write train-00001 anew with samples that `change(number, fields, meta)` has changed, hashes and all."""
    shards = ShardSet(root, "train")
    samples = [(n, shards.read([n])[0], json.loads(json.dumps(shards.meta(n)))) for n in range(16, 32)]
    write_shard(root, "train", 1, [(sample_key(n), *change(n, fields, meta)) for n, fields, meta in samples])
    rehash(root)


def findings(root):
    report = verify(root)
    assert not [line for line in (*report.findings, *report.notes) if "\n" in line]
    return report.findings


def named(lines, *parts):
    """Exactly one of the lines names all of these."""
    assert len([line for line in lines if all(str(part) in line for part in parts)]) == 1, lines


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["small_shards", "heat_shards"])
def test_a_true_set_has_no_findings(request, name):
    root, seen = request.getfixturevalue(name), []
    report = verify(root, lambda *given: seen.append(given))
    assert (report.findings, report.notes, report.samples) == ([], [], 64)
    assert report.bytes == sum(p.stat().st_size for p in root.iterdir() if p.suffix == ".tar" or ".index" in p.name)
    assert seen[-1][1] == seen[-1][2] and {stage for stage, *_ in seen} == {"shards", "train samples", "test samples"}
    assert report.summary.startswith(f"{root}: 64 samples, ") and report.summary.endswith(" 0 findings")
    assert verify(f"file://{root}").findings == []


def test_a_converted_set_has_no_findings(darcy, tmp_path):
    source = foreign.plain(tmp_path / "a.npz", a=darcy[:, 0], u=darcy[:, 1])
    converted(source, tmp_path / "set", test=1)
    assert verify(tmp_path / "set").findings == []
    manifest = load_manifest(tmp_path / "set")
    assert "from the file a.npz (npz, " in card(manifest, "x")[-1] and "launch/convert.py" in card(manifest, "x")[-1]
    assert "launch/convert.py source=a.npz out=/there" in how_to_finish(manifest.request, "/there")


def test_a_flipped_byte_is_named_with_its_sample_and_rows(copy):
    where = json.loads((copy / INDEX).read_text())["samples"][5]["fields"]["array"]
    flip(copy / TAR, where + 16 * 16 * 4 + 7)
    found = findings(copy)
    assert len(found) == 2
    named(found, copy / TAR, "SHA-256")
    named(found, copy / TAR, "sample 00000021", "temperature_01", "row block 0")


def test_a_damaged_npy_header_is_named(copy):
    """Numpy's own parser ends with errors of its tokeniser there."""
    at = json.loads((copy / INDEX).read_text())["samples"][1]["fields"]["array"] - 20
    data = bytearray((copy / TAR).read_bytes())
    data[at] = ord("(")
    (copy / TAR).write_bytes(data)
    found = findings(copy)
    named(found, TAR, "00000017.fields.npy", "cannot be read")
    named(found, TAR, "SHA-256")
    (copy / INDEX).unlink()
    (copy / "manifest.json").unlink()
    (left,) = repair_indices(copy).left
    assert TAR in left and "not a whole shard" in left


def test_a_truncated_tar_is_named_and_the_rest_is_checked(copy):
    os.truncate(copy / TAR, 4096)
    flip(copy / "test-00000.tar", 4000)
    report = verify(copy)
    named(report.findings, copy / TAR, "4096 bytes", "truncated")
    named(report.findings, copy / "test-00000.tar", "SHA-256")
    named(report.notes, "16 samples of split 'train' not read")
    named(report.notes, "normaliser not held")


@pytest.mark.parametrize(
    ("kind", "words"), [("missing", [INDEX, "missing"]), ("stale", [INDEX, "SHA-256", "repair-index"])]
)
def test_a_missing_or_stale_index_is_named(copy, kind, words):
    if kind == "missing":
        (copy / INDEX).unlink()
    else:
        shutil.copy(copy / "train-00000.index.json", copy / INDEX)
    (found,) = findings(copy)
    assert all(word in found for word in words), found


def test_a_missing_tar_is_named(copy):
    (copy / TAR).unlink()
    (found,) = findings(copy)
    assert TAR in found and "missing" in found


def test_a_stray_tar_is_a_note(copy):
    shutil.copy(copy / TAR, copy / "train-00003.tar")
    report = verify(copy)
    assert report.findings == []
    named(report.notes, copy / "train-00003.tar", "no entry of manifest.json lists it")


def test_values_that_are_not_finite_are_named_though_all_checksums_agree(copy, monkeypatch):
    monkeypatch.setattr(write, "_check_sample", lambda *given: None)
    of = write.Stats.of
    monkeypatch.setattr(write.Stats, "of", staticmethod(lambda fields: of(np.nan_to_num(fields))))

    def change(n, fields, meta):
        fields[2, 3, 4] = np.nan if n == 19 else fields[2, 3, 4]
        return fields, meta

    rewritten(copy, change)
    monkeypatch.undo()
    (found,) = findings(copy)
    assert all(word in found for word in (TAR, "sample 00000019", "temperature_02", "not finite")), found


@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_wrong_normaliser_is_named(copy, key):
    manifest = load_manifest(copy)
    normaliser = json.loads(json.dumps(manifest.normaliser))
    normaliser[key][1] += 2e-5
    put(copy, manifest, normaliser=normaliser)
    (found,) = findings(copy)
    assert all(word in found for word in ("manifest.json", f"normaliser.{key}", "temperature_01")), found


@pytest.mark.parametrize("floors", [{}, {"train": 3}, {"train": {"l2": "small"}}])
def test_wrong_floors_are_named(copy, floors):
    manifest = put(copy, load_manifest(copy), truth_residual=floors)
    found = findings(copy)
    for split in ("train", "test"):
        named(found, f"truth_residual of '{split}': max_l2 is None")
    assert not floors or "expected a number for each norm" in "\n".join(card(manifest, "x"))


def test_a_wrong_stored_residual_is_named(copy):
    def change(n, fields, meta):
        if n == 20:
            meta["residual"]["l2"] *= 10
        return fields, meta

    rewritten(copy, change)
    found = findings(copy)
    named(found, TAR, "sample 20: residual l2")
    named(found, "manifest.json", "truth_residual of 'train': l2")


def test_fields_that_are_not_those_of_the_residual_are_named(copy):
    """Hashes, checksums and statistics all agree; only the equation tells."""

    def change(n, fields, meta):
        if n == 20:
            fields[3] *= 1.001
        return fields, meta

    rewritten(copy, change)
    manifest = load_manifest(copy)
    stats = [json.loads((copy / f"train-0000{i}.index.json").read_text())["stats"] for i in range(3)]
    whole = write.merge_stats([write.Stats(s["count"], s["mean"], s["m2"]) for s in stats])
    put(copy, manifest, normaliser={"mean": list(whole.mean), "std": list(whole.std)})
    found = findings(copy)
    assert len(found) == 2
    named(found, TAR, "sample 20: residual dual")
    named(found, TAR, "sample 20: residual l2")


def test_a_request_that_disagrees_is_named(copy):
    request = json.loads((copy / "request.json").read_text())
    write_atomic(copy / "request.json", canonical(request | {"seed": 4}))
    (found,) = findings(copy)
    assert all(word in found for word in ("request.json", "seed", "manifest.json")), found
    manifest = load_manifest(copy)
    write_atomic(copy / "request.json", canonical(request))
    put(copy, manifest, params=manifest.params | {"diffusivity_high": 4e-3})
    assert "key 'params' is not what its own request says" in findings(copy)[0]


@pytest.mark.parametrize("name", [TAR, INDEX, "request.json", "manifest.json"])
def test_a_link_that_leaves_is_named(copy, tmp_path, name):
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    (found,) = findings(copy)
    assert str(copy / name) in found and "leaves the set's folder" in found


def test_overlapping_and_repeated_seeds_are_named(copy):
    manifest = load_manifest(copy)
    splits = manifest.splits | {"test": replace(manifest.splits["test"], seeds=(40, 56))}
    put(copy, manifest, splits=splits)
    found = findings(copy)
    named(found, "overlap", "'train'", "'test'")
    assert len([line for line in found if "test-00000.tar: sample" in line and "says 40 to 55" in line]) == 16
    put(copy, manifest)
    rewritten(copy, lambda n, fields, meta: (fields, meta | {"seed": 3} if n == 30 else meta))
    named(findings(copy), TAR, "sample 30", "seed 3 is that of train sample 3")


def test_an_index_that_the_manifest_lists_but_its_tar_does_not_bear_out_is_named(copy):
    plain = json.loads((copy / INDEX).read_text())
    plain["samples"][2]["meta"]["params"]["diffusivity"] *= 1.5
    plain["samples"][3]["fields"]["bytes"] += 1
    plain["shard"] = "train-00007.tar"
    plain["stats"]["m2"][0] *= 2
    (copy / INDEX).write_bytes(canonical(plain))
    rehash(copy)
    found = findings(copy)
    named(found, TAR, "00000018.json", "params not as in the index")
    named(found, TAR, "00000019.fields.npy", "its index says")
    named(found, INDEX, "'shard'", "train-00007.tar")
    named(found, INDEX, "'stats'")


def test_members_that_are_not_those_of_the_shard_are_named_and_counted(copy):
    for name in (TAR, INDEX):
        shutil.copy(copy / name.replace("00001", "00000"), copy / name)
    rehash(copy)
    found = findings(copy)
    named(found, TAR, "member 0 is '00000000.fields.npy', expected '00000016.fields.npy'")
    named(found, TAR, "and 16 more findings")


def test_an_edited_manifest_is_named_and_the_shards_are_counted(copy):
    plain = json.loads((copy / "manifest.json").read_text())
    plain["equation"] = "wave"
    (copy / "manifest.json").write_text(json.dumps(plain))
    report = verify(copy)
    named(report.findings, "data_hash")
    named(report.notes, "4 of 4 shards are whole", "make_shards.py")


def test_an_equation_that_is_not_here_is_a_note(copy, monkeypatch):
    manifest = load_manifest(copy)
    (copy / "request.json").unlink()
    put(copy, manifest, equation="nowhere:Mine", request={})
    report = verify(copy)
    assert report.findings == [] and report.samples == 64
    named(report.notes, "residuals not checked", "No module named 'nowhere'")
    named(report.notes, "request.json", "missing")
    assert "nowhere" not in sys.modules


def test_an_unfinished_set_says_how_far_it_is_and_how_to_finish_it(copy):
    manifest = load_manifest(copy)
    (copy / "manifest.json").unlink()
    (copy / INDEX).unlink()
    flip(copy / "train-00002.tar", 4000)
    (copy / "test-00000.tar").unlink()
    found = findings(copy)
    assert len(found) == 3
    named(found, TAR, "no index", "repair-index")
    named(found, "train-00002.tar", "not whole")
    named(found, "manifest.json", "1 of 4 shards are whole (16 samples)", "`python launch/make_shards.py pde=heat ")
    words = found[-1].partition("make_shards.py ")[2].rstrip("`").split()
    made = settings_from(words, phases=())
    assert made.pde.params == manifest.params and made.pde.points == 16
    assert (made.data.train, made.data.test, made.data.samples_per_shard, made.data.seed) == (48, 16, 16, 3)
    assert made.data.path == str(copy)


@pytest.mark.parametrize(
    ("path", "words"), [("nowhere", "no such folder"), ("s4://x/y", "cannot be opened"), (".", "not a shard set")]
)
def test_what_is_no_set_is_one_finding(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (found,) = findings(path)
    assert words in found


def test_a_card_says_what_a_set_holds(heat_shards):
    manifest = load_manifest(heat_shards)
    said = "\n".join(card(manifest, "/data/heat16"))
    for words in (
        "/data/heat16: shard set, format version 1",
        "heat",
        "diffusivity_high=0.005",
        "periodic 16 x 16",
        "temperature_00  [1] input     mean ",
        "train: 48 samples in 3 shards, ",
        "seeds 0 to 47",
        f"l2 {manifest.truth_residual['test']['l2']:.2g} (at most ",
        manifest.data_hash,
        "from seed 3, 16 samples a shard, by launch/make_shards.py",
    ):
        assert words in said, said
