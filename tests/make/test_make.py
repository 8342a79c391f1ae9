"""A shard set is a function of its request: it is made, continued, left unchanged or refused, never overwritten."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.dataset import publish
from pidscale.make import make
from pidscale.make.make import make_shard_set
from pidscale.pde.darcy import Darcy
from pidscale.pde.residuals import truth_residuals
from pidscale.records.check import load_manifest
from pidscale.records.lock import held
from pidscale.records.read import ShardSet

PDE = Darcy()
GRID = PDE.grid(17)


def run(root, samples=None, pde=PDE, **settings):
    arguments = {"grid": GRID, "seed": 5, "samples_per_shard": 4, "parallel": False} | settings
    return make_shard_set(pde, root, samples or {"train": 10, "test": 3}, **arguments)


def contents(root):
    return {p.name: p.read_bytes() for p in root.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "darcy"
    run(root)
    return root


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_each_sample_is_a_function_of_its_counter(finished):
    manifest = load_manifest(finished)
    assert manifest.grid == GRID.describe() and manifest.params == PDE.params_dict()
    assert manifest.splits["train"].seeds == (0, 10) and manifest.splits["test"].seeds == (2**40, 2**40 + 3)
    for split, first in (("train", 0), ("test", 2**40)):
        shards = ShardSet(finished, split)
        for n in range(len(shards)):
            fields, params = PDE.sample(5, first + n, GRID)
            np.testing.assert_array_equal(shards.read([n])[0], fields.astype(np.float32))
            assert shards.meta(n)["seed"] == first + n and shards.meta(n)["params"] == params


def test_the_normaliser_is_measured_on_the_train_split_only(finished):
    train = ShardSet(finished, "train").read(range(10)).astype(np.float64)
    normaliser = load_manifest(finished).normaliser
    np.testing.assert_allclose(normaliser["mean"], train.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(normaliser["std"], train.std(axis=(0, 2, 3)), rtol=1e-12)


def test_the_floor_is_the_residual_of_what_is_stored(finished):
    floors = load_manifest(finished).truth_residual
    for split in ("train", "test"):
        shards = ShardSet(finished, split)
        norms = truth_residuals(PDE, GRID, shards.read(range(len(shards))), np.empty((len(shards), 0)))
        assert set(norms) == {"l2", "dual", "boundary"}
        for name, values in norms.items():
            np.testing.assert_allclose(floors[split][name], np.sqrt(np.mean(values**2)), rtol=1e-4, atol=1e-12)
            assert floors[split][f"max_{name}"] >= floors[split][name]
            assert floors[split][name] < 1e-3
            np.testing.assert_allclose(shards.meta(1)["residual"][name], values[1], rtol=1e-4, atol=1e-12)


def test_progress_counts_samples(tmp_path):
    seen = []
    run(tmp_path / "set", {"train": 9}, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 9), (8, 9), (9, 9)]


def test_what_a_task_that_was_killed_leaves_is_removed(tmp_path):
    """Ray runs such a task once more, in a process that gives its unfinished file another name."""
    left = tmp_path / ".train-00000.tar.123.tmp"
    run(tmp_path, progress=lambda done, total: left.write_bytes(b"half"))
    assert (tmp_path / "manifest.json").exists() and not left.exists()


def test_a_finished_set_is_left_unchanged(finished, monkeypatch):
    monkeypatch.setattr(make, "make_shard", lambda job: pytest.fail("made again"))
    before = contents(finished)
    assert run(finished) == load_manifest(finished)
    assert contents(finished) == before


def test_a_set_without_request_file_is_identified_by_its_manifest(copy):
    (copy / "request.json").unlink()
    assert run(copy) == load_manifest(copy)
    with pytest.raises(UserError, match=r"manifest\.json.*seed"):
        run(copy, seed=6)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"seed": 6}, "seed"),
        ({"samples": {"train": 12}}, "samples"),
        ({"samples_per_shard": 5}, "samples_per_shard"),
        ({"grid": PDE.grid(16)}, "grid"),
        ({"pde": Darcy.from_params({"variant": "log_normal"})}, "params"),
    ],
)
def test_another_request_is_refused_by_name(copy, settings, key):
    before = contents(copy)
    for whole in (True, False):
        with pytest.raises(UserError) as error:
            run(copy, **settings)
        assert key in str(error.value) and "data.path" in str(error.value) and "\n" not in str(error.value)
        if whole:
            assert contents(copy) == before
        (copy / "manifest.json").unlink(missing_ok=True)  # an unfinished set is refused too


def test_foreign_tar_files_are_refused(tmp_path):
    (tmp_path / "train-00000.tar").write_bytes(b"precious")
    with pytest.raises(UserError, match="not made here"):
        run(tmp_path)
    assert contents(tmp_path) == {"train-00000.tar": b"precious"}


@pytest.mark.parametrize("mark", ["card.json", "config.json"])
def test_a_folder_of_a_student_or_a_run_is_refused_and_left_unchanged(tmp_path, mark):
    (tmp_path / mark).write_bytes(b"{}")
    with pytest.raises(UserError, match=rf"holds a.*{mark}.*; choose another data\.path"):
        run(tmp_path)
    assert contents(tmp_path) == {mark: b"{}"}


def test_a_killed_run_is_continued_to_the_same_bytes(finished, copy, monkeypatch):
    (copy / "manifest.json").unlink()
    (copy / "train-00001.tar").unlink()  # never written
    (copy / "train-00002.index.json").unlink()  # killed between tar and index
    (copy / "test-00000.tar").write_bytes((copy / "test-00000.tar").read_bytes()[:-700])  # truncated
    (copy / ".train-00001.tar.123.tmp").write_bytes(b"half")
    made = []
    write = publish.write_shard
    monkeypatch.setattr(publish, "write_shard", lambda *given: made.append(given[1:3]) or write(*given))
    run(copy)
    assert made == [("train", 1), ("train", 2), ("test", 0)]
    assert contents(copy) == contents(finished)


def test_a_run_that_fails_leaves_no_manifest_and_can_be_continued(finished, tmp_path, monkeypatch):
    draw = Darcy.sample

    def fail(self, seed, counter, grid):
        if counter == 6:
            raise RuntimeError("killed")
        return draw(self, seed, counter, grid)

    monkeypatch.setattr(Darcy, "sample", fail)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "set")
    assert sorted(contents(tmp_path / "set")) == ["request.json", "train-00000.index.json", "train-00000.tar"]
    monkeypatch.setattr(Darcy, "sample", draw)
    run(tmp_path / "set")
    assert contents(tmp_path / "set") == contents(finished)


def test_a_concurrent_run_is_refused(copy):
    (copy / "manifest.json").unlink()
    before = contents(copy)
    with held(copy) as alone, pytest.raises(UserError, match="another run"):
        assert alone
        run(copy)
    assert contents(copy) == before
    run(copy)


def test_a_request_without_shards_is_replaced(tmp_path):
    """A value that is refused late leaves only request.json; the corrected command then replaces it."""
    root = tmp_path / "set"
    with pytest.raises(UserError, match="float32"):
        run(root, pde=Darcy.from_params({"source": 1e30}))
    assert [p.name for p in root.iterdir()] == ["request.json"]
    assert run(root).params["source"] == 1.0
    (root / "manifest.json").unlink()
    with pytest.raises(UserError, match="another request"):
        run(root, pde=Darcy.from_params({"source": 2.0}))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"samples": {"test": 4}}, "'train'"),
        ({"samples": {"train": 4, "valid": 4}}, "'valid'"),
        ({"samples": {"train": 0}}, "data.samples.train=0"),
        ({"samples": {"train": 4, "test": 2.5}}, "data.samples.test=2.5"),
        ({"samples_per_shard": 0}, "data.samples_per_shard=0"),
        ({"samples": {"train": 200000}, "samples_per_shard": 1}, "data.samples_per_shard=1"),
        ({"in_flight": 0}, "data.in_flight=0"),
        ({"parallel": True}, "Ray"),
    ],
)
def test_wrong_numbers_are_named_and_nothing_is_made(tmp_path, monkeypatch, settings, key):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(UserError) as error:
        run(tmp_path / "set", **settings)
    assert key in str(error.value)
    assert not list(tmp_path.iterdir())


@dataclasses.dataclass(frozen=True)
class Broken(Darcy):
    """An equation whose third sample is not finite, or has the wrong shape."""

    wrong_shape: bool = False

    def sample(self, seed, counter, grid):
        fields, params = super().sample(seed, counter, grid)
        if counter == 2:
            fields = fields[:, 1:] if self.wrong_shape else np.full_like(fields, np.inf)
        return fields, params


@pytest.mark.parametrize("source", [1e300, 1e30])
def test_values_beyond_float32_are_refused_in_one_line(tmp_path, source):
    """The values are those of the fields, or the squares in their residual."""
    with pytest.raises(UserError, match=r"darcy: .*float32; check pde\.params"):
        run(tmp_path / "set", pde=Darcy.from_params({"source": source}))
    assert not (tmp_path / "set" / "manifest.json").exists()


@pytest.mark.parametrize(("wrong_shape", "part"), [(False, "not finite"), (True, "shape (2, 16, 17)")])
def test_a_bad_sample_is_named(tmp_path, wrong_shape, part):
    with pytest.raises(UserError) as error:
        run(tmp_path / "set", pde=Broken(wrong_shape=wrong_shape))
    assert "darcy: seed 5, sample 2" in str(error.value) and part in str(error.value)


def test_a_constant_channel_is_named(tmp_path):
    flat = Darcy.from_params({"low": 3.0, "high": 3.0})
    with pytest.raises(UserError, match="'permeability' is constant"):
        run(tmp_path / "set", pde=flat)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        run(tmp_path / "file")


def test_an_address_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"data\.path=s3://b/set: a set is made in a folder; make it there, then upload"
    ):
        run("s3://b/set")
    assert not list(tmp_path.iterdir())


def test_the_request_is_plain_and_complete(finished):
    request = json.loads((finished / "request.json").read_text())
    assert request == load_manifest(finished).request
    assert set(request) == {"format", "equation", "params", "grid", "seed", "samples", "samples_per_shard"}


def test_equal_fields_in_two_splits_are_refused(tmp_path, monkeypatch):
    """Different seeds do not prove different fields: an equation may ignore a part of the seed."""
    draw = Darcy.sample
    monkeypatch.setattr(Darcy, "sample", lambda self, seed, counter, grid: draw(self, seed, counter % 2**39, grid))
    with pytest.raises(UserError, match="darcy: test sample 0 has the same fields as train sample 0; check") as error:
        run(tmp_path / "set")
    assert "\n" not in str(error.value) and not (tmp_path / "set" / "manifest.json").exists()
