"""A converted set is a function of its file and its request, is read like one of our own, and its quality is measured."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
from omegaconf import OmegaConf

from pidscale.config import DataSettings, PdeSettings, UserError
from pidscale.convert.layouts import READERS
from pidscale.convert.mapping import slots_of
from pidscale.convert.quality import measure_quality
from pidscale.convert.request import parse_request, split_words
from pidscale.dataset import publish
from pidscale.dataset.problem import open_problem
from pidscale.ops.grid import Grid
from pidscale.pde import build_pde
from pidscale.pde.burgers import Burgers
from pidscale.pde.darcy import Darcy
from pidscale.records.check import check_set, check_wanted, load_manifest
from pidscale.records.lock import held
from pidscale.records.read import ShardSet
from tests.convert import foreign
from tests.convert.foreign import converted

PDE = Darcy()
GRID = PDE.grid(9)
ROOT = Path(__file__).resolve().parents[2]
FNO = Path(os.environ.get("PIDSCALE_FNO_DATA", ROOT.parent / "shared" / "data" / "fno"))
real = pytest.mark.skipif(not (FNO / "darcy_train_16.pt").is_file(), reason="no folder with the two public files")


@pytest.fixture(scope="module")
def fields():
    return foreign.truths(PDE, GRID, 20)


@pytest.fixture(scope="module")
def source(fields, tmp_path_factory):
    weight = np.arange(20, dtype=np.float32)
    return foreign.plain(tmp_path_factory.mktemp("source") / "a.npz", a=fields[:, 0], u=fields[:, 1], weight=weight)


def run(source, root, **arguments):
    return converted(source, root, **{"test": 5, "samples_per_shard": 4} | arguments)


def contents(root):
    return {p.name: p.read_bytes() for p in root.iterdir()}


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "set"
    run(source, root)
    return root


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_each_sample_is_in_one_split_with_its_number_and_parameters(finished, fields):
    seen = []
    for split, count in (("train", 15), ("test", 5)):
        shards = ShardSet(finished, split)
        assert len(shards) == count and shards.manifest.splits[split].seeds[0] == publish.FIRST_COUNTER[split]
        for n in range(count):
            meta = shards.meta(n)
            seen.append(meta["source"])
            np.testing.assert_array_equal(shards.read([n])[0], fields[meta["source"]])
            assert meta["params"] == {"weight": float(meta["source"])}
            assert meta["seed"] == publish.FIRST_COUNTER[split] + n and meta["residual"]["l2"] < 1e-3
    assert sorted(seen) == list(range(20)) and seen != list(range(20))


def test_the_manifest_is_like_our_own_and_opens_for_training(finished):
    manifest = load_manifest(finished)
    check_wanted(manifest, finished, "darcy", GRID.describe())
    check_set(manifest, finished, contents=True)
    train = ShardSet(finished, "train").read(range(15)).astype(np.float64)
    np.testing.assert_allclose(manifest.normaliser["mean"], train.mean(axis=(0, 2, 3)), rtol=1e-12)
    assert 0 < manifest.truth_residual["train"]["l2"] <= manifest.truth_residual["train"]["max_l2"] < 1e-3
    for points in (9, None):
        problem = open_problem(PdeSettings("darcy", {}, points), DataSettings(path=str(finished)))
        assert problem.shape == (2, 9, 9) and problem.grid == GRID


def test_webdataset_reads_it(finished):
    count = 0
    for name in ("train-00000.tar", "train-00001.tar"):
        for sample in webdataset.WebDataset(str(finished / name), shardshuffle=False).decode():
            assert sample["fields.npy"].shape == (2, 9, 9) and sample["json"]["params"].keys() == {"weight"}
            count += 1
    assert count == 8


def test_the_request_names_the_file_but_no_path(finished, source):
    request = json.loads((finished / "request.json").read_text())
    assert request == load_manifest(finished).request
    assert request["source"]["file"] == "a.npz" and request["source"]["layout"] == "npz"
    assert len(request["source"]["sha256"]) == 64 and request["channels"]["pressure"]["array"] == "u"
    assert str(source.parent) not in json.dumps(load_manifest(finished).to_json())


def test_the_same_request_gives_the_same_bytes(finished, source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pidscale.convert.sample_reader.BLOCK_BYTES", 3000
    )  # the request does not include the size of blocks
    moved = shutil.copy(source, tmp_path / "a.npz")  # or the folder of the source
    run(moved, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(finished)


def test_a_finished_set_is_left_unchanged(finished, source, monkeypatch):
    before = contents(finished)
    monkeypatch.setattr(publish, "write_shard", lambda *given: pytest.fail("written again"))
    assert run(source, finished).manifest == load_manifest(finished)
    assert contents(finished) == before


def test_a_killed_run_is_continued_to_the_same_bytes(finished, copy, source, monkeypatch):
    (copy / "manifest.json").unlink()
    (copy / "train-00001.tar").unlink()
    (copy / "test-00000.tar").write_bytes((copy / "test-00000.tar").read_bytes()[:-700])
    (copy / ".train-00001.tar.123.tmp").write_bytes(b"half")
    made = []
    write = publish.write_shard
    monkeypatch.setattr(publish, "write_shard", lambda *given: made.append(given[1:3]) or write(*given))
    run(source, copy)
    assert made == [("train", 1), ("test", 0)] and contents(copy) == contents(finished)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"test": 4}, "test"),
        ({"seed": 1}, "seed"),
        ({"scale": {"pressure": 2.0}}, "channels"),
        ({"samples_per_shard": 5}, "per_shard"),
    ],
)
def test_another_request_is_refused_by_name(copy, source, arguments, key):
    before = contents(copy)
    with pytest.raises(UserError, match=rf"another request \(.*{key}.*\); choose another out"):
        run(source, copy, **arguments)
    assert contents(copy) == before


def test_another_file_and_a_concurrent_run_are_refused(copy, source, fields, tmp_path):
    other = foreign.plain(tmp_path / "a.npz", a=fields[:, 0], u=fields[:, 1])
    with pytest.raises(UserError, match=r"another request \(source"):
        run(other, copy)
    (copy / "manifest.json").unlink()
    with held(copy), pytest.raises(UserError, match=r"another run .* change out"):
        run(source, copy)


def test_copies_are_omitted_and_counted_or_refused(fields, tmp_path):
    twice = np.concatenate([fields, fields[3:6]])
    path = foreign.plain(tmp_path / "a.npz", a=twice[:, 0], u=twice[:, 1])
    done = run(path, tmp_path / "set")
    assert done.copies == 3 and {s: v.samples for s, v in done.manifest.splits.items()} == {"train": 15, "test": 5}
    with pytest.raises(UserError, match=r"3 samples are copies, sample 20 of 3; .*duplicates=drop"):
        run(path, tmp_path / "other", duplicates="refuse")


def test_the_test_split_can_be_a_share_or_empty(source, tmp_path):
    assert run(source, tmp_path / "a", test=0.2).manifest.splits["test"].samples == 4
    assert set(run(source, tmp_path / "b", test=0).manifest.splits) == {"train"}


def test_an_unknown_scaling_is_found(fields, tmp_path):
    path = foreign.plain(tmp_path / "a.npz", a=fields[:, 0], u=100 * fields[:, 1])
    done = run(path, tmp_path / "set")
    quality = measure_quality(tmp_path / "set", done.manifest, done.pde, done.grid)
    assert quality.scaling == pytest.approx((0.01, 0), abs=1e-5)
    assert any("set scale.pressure=0.01" in line for line in quality.warnings(done.pde))
    right = run(path, tmp_path / "right", scale={"pressure": 0.01})
    assert not measure_quality(tmp_path / "right", right.manifest, right.pde, right.grid).warnings(right.pde)


def test_sub_sampled_fields_are_warned_about(tmp_path):
    fine = foreign.truths(PDE, PDE.grid(65), 6)[:, :, ::4, ::4]
    path = foreign.plain(tmp_path / "a.npz", a=fine[:, 0], u=fine[:, 1])
    done = run(path, tmp_path / "set", test=1)
    quality = measure_quality(tmp_path / "set", done.manifest, done.pde, done.grid)
    assert quality.data["l2"] > 0.3 > 1e-3 > quality.solved["l2"]
    assert any("do not satisfy darcy" in line and "sub-sampled" in line for line in quality.warnings(done.pde))


def test_a_wrong_viscosity_is_warned_about(tmp_path):
    grid = Grid((33, 64), (1.0, 1.0), "strip", "periodic")
    fields = foreign.truths(Burgers.from_params({"viscosity": 0.05}), grid, 6)
    path = foreign.plain(tmp_path / "a.npz", u=fields[:, 0])
    right = run(path, tmp_path / "a", pde="burgers", given={"viscosity": 0.05}, test=1)
    assert not measure_quality(tmp_path / "a", right.manifest, right.pde, right.grid).warnings(right.pde)
    wrong = run(path, tmp_path / "b", pde="burgers", test=1)
    assert any("viscosity=0.01" in note for note in wrong.notes)
    assert measure_quality(tmp_path / "b", wrong.manifest, wrong.pde, wrong.grid).warnings(wrong.pde)


@real
def test_the_public_darcy_file_is_converted_with_warnings(tmp_path):
    for scale, least, most in (({}, 100, 300), ({"pressure": 0.0114}, 0.5, 5)):
        root = tmp_path / f"set{len(scale)}"
        done = converted(FNO / "darcy_train_16.pt", root, scale=scale)
        quality = measure_quality(root, done.manifest, done.pde, done.grid)
        assert least < done.manifest.truth_residual["train"]["l2"] < most
        assert quality.solved["l2"] < 1e-4 and quality.null["l2"] == pytest.approx(1, abs=1e-3)
        assert any("the last points were omitted" in line for line in done.warnings)
        assert any("do not satisfy darcy" in line for line in quality.warnings(done.pde))
    assert set(np.unique(ShardSet(root, "train").read(range(50))[:, 0])) == {3.0, 12.0}


@real
def test_the_public_burgers_file_is_converted_without_warnings(tmp_path):
    done = converted(FNO / "burgers_train_16.pt", tmp_path / "set", "burgers")
    assert done.grid.shape == (17, 16) and sum(s.samples for s in done.manifest.splits.values()) == 800
    assert done.pde.params.viscosity == 0.01 and done.pde.params.duration == 1.0
    quality = measure_quality(tmp_path / "set", done.manifest, done.pde, done.grid)
    assert quality.data["l2"] == pytest.approx(0.023, rel=0.1) and quality.null["l2"] == pytest.approx(0.15, rel=0.1)
    assert not quality.warnings(done.pde) and not done.warnings


def test_the_script_prints_a_report_and_exits_with_2_on_an_error(source, tmp_path):
    def script(*words):
        command = [sys.executable, ROOT / "launch" / "convert.py", f"source={source}", *words]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)

    done = script("out=set", "pde=darcy", "test=5", "pde.params.low=3.0")
    assert done.returncode == 0, done.stderr
    mapped = "permeability <- a [N, Y, X]"
    train = "pde=darcy pde.points=null data.path=set"
    for part in (mapped, "train 15, test 5", train, "these data", "null solution", "solved here"):
        assert part in done.stdout
    assert load_manifest(tmp_path / "set").splits["train"].samples == 15
    for words, message in (
        (["pde=navier"], "pde"),
        ([], "pde=: missing; name the equation"),
        (["pde=darcy", "pde.points=32"], "pde.points: the file has its own grid"),
    ):
        wrong = script("out=other", *words)
        assert wrong.returncode == 2 and wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1
        assert message in wrong.stderr
    assert not (tmp_path / "other").exists()


def test_the_commands_of_the_guide_can_be_parsed():
    text = (ROOT / "docs" / "converting.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("pidscale convert") and "FILE" not in line]
    assert {layout for layout in READERS if f"`{layout}`" in text} == set(READERS) and len(lines) > len(READERS)
    for line in lines:
        ours, (pde, *params) = split_words(line.split()[2:])
        settings = plain_settings(ROOT / "configs" / "pde" / f"{pde.removeprefix('pde=')}.yaml")
        given = dict(word.removeprefix("pde.params.").split("=") for word in params)
        slots, _ = slots_of(build_pde(settings["name"], {k: float(v) for k, v in given.items()}))
        assert set(parse_request(ours).channels) | set(parse_request(ours).scale) <= set(slots)


def plain_settings(path):
    return OmegaConf.to_container(OmegaConf.load(path))
