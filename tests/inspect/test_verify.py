"""Everything that is wrong with the files of a set is found, one line each; a valid set has no finding."""

import json
import os
import shutil

import pytest

from pidscale.app.compose import settings_from
from pidscale.files import write_atomic
from pidscale.inspect.show import describe_set, finish_command
from pidscale.inspect.verify import verify
from pidscale.records.check import load_manifest
from pidscale.records.json_checks import canonical
from pidscale.records.repair import repair_indices
from tests.convert import foreign
from tests.convert.foreign import converted
from tests.inspect.damage import INDEX, TAR, findings, flip, named, put, rehash


@pytest.fixture(scope="module")
def darcy():
    return foreign.truths(foreign.DARCY, foreign.DARCY.grid(9), 5)


@pytest.fixture
def copy(heat_shards, tmp_path):
    return shutil.copytree(heat_shards, tmp_path / "heat")


@pytest.mark.parametrize("name", ["small_shards", "heat_shards"])
def test_a_valid_set_has_no_findings(request, name):
    root = request.getfixturevalue(name)
    seen = []
    report = verify(root, lambda *given: seen.append(given))
    assert (report.findings, report.notes, report.samples) == ([], [], 64)
    assert report.bytes == sum(p.stat().st_size for p in root.iterdir() if p.suffix == ".tar" or ".index" in p.name)
    assert seen[-1][1] == seen[-1][2] and {stage for stage, *_ in seen} == {"shards", "train samples", "test samples"}
    assert report.summary.startswith(f"{root}: 64 samples, ") and report.summary.endswith(" 0 findings")
    assert verify(f"file://{root}").findings == []


def test_a_converted_set_has_no_findings(tmp_path):
    darcy = foreign.truths(foreign.DARCY, foreign.DARCY.grid(9), 5)
    source = foreign.plain(tmp_path / "a.npz", a=darcy[:, 0], u=darcy[:, 1])
    converted(source, tmp_path / "set", test=1)
    assert verify(tmp_path / "set").findings == []
    manifest = load_manifest(tmp_path / "set")
    assert (
        "from the file a.npz (npz, " in describe_set(manifest, "x")[-1]
        and "`pidscale convert`" in describe_set(manifest, "x")[-1]
    )
    assert "`pidscale convert source=a.npz out=/there`" in finish_command(manifest.request, "/there")


def test_a_flipped_byte_is_found_with_its_sample_and_rows(copy):
    where = json.loads((copy / INDEX).read_text())["samples"][5]["fields"]["array"]
    flip(copy / TAR, where + 16 * 16 * 4 + 7)
    found = findings(copy)
    assert len(found) == 2
    named(found, copy / TAR, "SHA-256")
    named(found, copy / TAR, "sample 00000021", "temperature_01", "row block 0")


def test_a_damaged_npy_header_is_found(copy):
    """On such a header numpy's own parser raises errors of its tokeniser."""
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


def test_a_truncated_tar_is_found_and_the_rest_is_checked(copy):
    os.truncate(copy / TAR, 4096)
    flip(copy / "test-00000.tar", 4000)
    report = verify(copy)
    named(report.findings, copy / TAR, "4096 bytes", "truncated")
    named(report.findings, copy / "test-00000.tar", "SHA-256")
    named(report.notes, "16 samples of split 'train' not read")
    named(report.notes, "normaliser not compared")


@pytest.mark.parametrize(
    ("kind", "words"), [("missing", [INDEX, "missing"]), ("stale", [INDEX, "SHA-256", "repair-index"])]
)
def test_a_missing_or_stale_index_is_found(copy, kind, words):
    if kind == "missing":
        (copy / INDEX).unlink()
    else:
        shutil.copy(copy / "train-00000.index.json", copy / INDEX)
    (found,) = findings(copy)
    assert all(word in found for word in words), found


def test_a_missing_tar_is_found(copy):
    (copy / TAR).unlink()
    (found,) = findings(copy)
    assert TAR in found and "missing" in found


def test_an_unlisted_tar_is_a_note(copy):
    shutil.copy(copy / TAR, copy / "train-00003.tar")
    report = verify(copy)
    assert report.findings == []
    named(report.notes, copy / "train-00003.tar", "manifest.json does not list it")


def test_a_request_that_disagrees_is_found(copy):
    request = json.loads((copy / "request.json").read_text())
    write_atomic(copy / "request.json", canonical(request | {"seed": 4}))
    (found,) = findings(copy)
    assert all(word in found for word in ("request.json", "seed", "manifest.json")), found
    manifest = load_manifest(copy)
    write_atomic(copy / "request.json", canonical(request))
    put(copy, manifest, params=manifest.params | {"diffusivity_high": 4e-3})
    assert "key 'params' is not what its own request says" in findings(copy)[0]


@pytest.mark.parametrize("name", [TAR, INDEX, "request.json", "manifest.json"])
def test_a_link_is_checked_by_its_target(copy, tmp_path, name):
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    assert findings(copy) == []
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-600])
    assert any(str(copy / name) in found for found in findings(copy))


def test_an_index_that_differs_from_its_tar_is_found(copy):
    plain = json.loads((copy / INDEX).read_text())
    plain["samples"][2]["meta"]["params"]["diffusivity"] *= 1.5
    plain["samples"][3]["fields"]["bytes"] += 1
    plain["stats"]["m2"][0] *= 2
    (copy / INDEX).write_bytes(canonical(plain))
    rehash(copy)
    found = findings(copy)
    named(found, TAR, "00000018.json", "params not as in the index")
    named(found, TAR, "00000019.fields.npy", "its index says")
    named(found, INDEX, "'stats'")
    plain["shard"] = "train-00007.tar"
    (copy / INDEX).write_bytes(canonical(plain))
    rehash(copy)
    named(findings(copy), INDEX, "not an index of version 1 of train-00001.tar")


def test_members_of_another_shard_are_found_and_counted(copy):
    for name in (TAR, INDEX):
        shutil.copy(copy / name.replace("00001", "00000"), copy / name)
    rehash(copy)
    found = findings(copy)
    named(found, TAR, "member 0 is '00000000.fields.npy', expected '00000016.fields.npy'")
    named(found, TAR, "and 16 more findings")


def test_an_edited_manifest_is_found_and_the_shards_are_counted(copy):
    plain = json.loads((copy / "manifest.json").read_text())
    plain["equation"] = "wave"
    (copy / "manifest.json").write_text(json.dumps(plain))
    report = verify(copy)
    named(report.findings, "data_hash")
    named(report.notes, "4 of 4 shards are finished", "`pidscale make-shards ")


def test_an_unfinished_set_is_reported_with_the_command_that_finishes_it(copy):
    manifest = load_manifest(copy)
    (copy / "manifest.json").unlink()
    (copy / INDEX).unlink()
    flip(copy / "train-00002.tar", 4000)
    (copy / "test-00000.tar").unlink()
    found = findings(copy)
    assert len(found) == 3
    named(found, TAR, "no index", "repair-index")
    named(found, "train-00002.tar", "is truncated")
    named(found, "manifest.json", "1 of 4 shards are finished (16 samples)", "`pidscale make-shards pde=heat ")
    words = found[-1].partition("`pidscale make-shards ")[2].rstrip("`").split()
    made = settings_from(words, phases=())
    assert made.pde.params == manifest.params and made.pde.points == 16
    assert (made.data.train, made.data.test, made.data.samples_per_shard, made.data.seed) == (48, 16, 16, 3)
    assert made.data.path == str(copy)


@pytest.mark.parametrize(
    ("path", "words"), [("nowhere", "no such folder"), ("s4://x/y", "cannot be opened"), (".", "not a shard set")]
)
def test_a_path_without_a_set_is_one_finding(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    (found,) = findings(path)
    assert words in found


def test_a_set_is_described(heat_shards):
    manifest = load_manifest(heat_shards)
    text = "\n".join(describe_set(manifest, "/data/heat16"))
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
        "from seed 3, 16 samples a shard, by `pidscale make-shards`",
    ):
        assert words in text, text
