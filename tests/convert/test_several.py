"""Several files read as one: found by folder, pattern or list; they must agree, and samples keep file and number."""

import json

import h5py
import numpy as np
import pytest

from pidscale.config import UserError
from pidscale.convert.files import find_files, short_names
from pidscale.convert.quality import measure_quality
from pidscale.pde import build_pde
from pidscale.records.check import load_manifest
from pidscale.records.read import ShardSet
from tests.convert import foreign
from tests.convert.foreign import converted, has, plain


@pytest.fixture(scope="module")
def fields():
    return foreign.truths(foreign.DARCY, foreign.DARCY.grid(9), 12)


def three(folder, fields, ending=".h5"):
    """Write three files of 5, 4 and 3 samples."""
    folder.mkdir(exist_ok=True)
    parts = {"b": fields[:5], "a": fields[5:9], "c": fields[9:]}
    return {n: plain(folder / f"{n}{ending}", a=one[:, 0], u=one[:, 1]) for n, one in parts.items()}


def by_origin(root):
    """Return fields and split of each sample, by file and number in the file."""
    request = load_manifest(root).request
    found = {}
    for split in load_manifest(root).splits:
        shards = ShardSet(root, split)
        for n in range(len(shards)):
            meta = shards.meta(n)
            found[request["source"]["files"][meta["file"]]["file"], meta["source"]] = (shards.read([n])[0], split)
    return found


@pytest.mark.parametrize("ending", [".h5", ".npz", ".pt"])
@pytest.mark.parametrize("how", ["folder", "pattern", "list", "brackets"])
def test_all_samples_of_all_files_are_converted(tmp_path, fields, ending, how):
    paths = three(tmp_path / "in", fields, ending)
    (tmp_path / "in" / "notes.txt").write_text("no data")
    listed = ",".join(str(paths[n]) for n in "abc")
    words = {"folder": tmp_path / "in", "pattern": tmp_path / "in" / f"[ab-c]*{ending}", "list": listed}
    done = converted(words.get(how, f"[{listed}]"), tmp_path / "set", test=2)
    found = by_origin(tmp_path / "set")
    assert len(found) == 12 and {s: v.samples for s, v in done.manifest.splits.items()} == {"train": 10, "test": 2}
    for name, first, count in (("b", 0, 5), ("a", 5, 4), ("c", 9, 3)):
        for n in range(count):
            np.testing.assert_array_equal(found[f"{name}{ending}", n][0], fields[first + n])
    files = done.manifest.request["source"]["files"]
    assert [one["file"] for one in files] == [f"{n}{ending}" for n in "abc"]
    assert all(len(one["sha256"]) == 64 and one["bytes"] > 0 for one in files)
    assert str(tmp_path) not in json.dumps(done.manifest.to_json())


def test_the_test_split_can_be_a_separate_file(tmp_path, fields):
    paths = three(tmp_path, fields)
    done = converted(f"{paths['a']},{paths['b']}", tmp_path / "set", test=str(paths["c"]))
    found = by_origin(tmp_path / "set")
    assert {key for key, (_, split) in found.items() if split == "test"} == {("c.h5", n) for n in range(3)}
    assert [one["split"] for one in done.manifest.request["source"]["files"]] == ["train", "train", "test"]
    assert done.manifest.request["test"] == "files"
    single = converted(paths["b"], tmp_path / "one", test=str(tmp_path / "c*.h5"))
    assert {s: v.samples for s, v in single.manifest.splits.items()} == {"train": 5, "test": 3}


def test_a_test_sample_that_is_also_in_train_is_omitted_from_the_test_split(tmp_path, fields):
    paths = three(tmp_path, fields)
    paths["c"].unlink()
    plain(paths["c"], a=fields[3:11, 0], u=fields[3:11, 1])
    done = converted(paths["b"], tmp_path / "set", test=str(paths["c"]))
    assert done.copies == 2 and {s: v.samples for s, v in done.manifest.splits.items()} == {"train": 5, "test": 6}
    with pytest.raises(UserError, match=r"2 samples are copies, c\.h5: sample 0 of b\.h5: sample 3"):
        converted(paths["b"], tmp_path / "other", test=str(paths["c"]), duplicates="refuse")
    both = plain(tmp_path / "d.h5", a=fields[:2, 0], u=fields[:2, 1])
    with pytest.raises(UserError, match=r"d\.h5: all its samples are bad, or copies"):
        converted(paths["b"], tmp_path / "third", test=str(both))
    with pytest.raises(UserError, match=r"b\.h5 is in source too"):
        converted(tmp_path / "*.h5", tmp_path / "third", test=str(paths["b"]))


def test_bad_samples_are_named_by_file_and_omitted(tmp_path, fields):
    paths = three(tmp_path, fields)
    with h5py.File(paths["c"], "r+") as file:
        file["u"][1, 4, 5] = np.nan
    with pytest.raises(UserError, match=r"1 of 12 samples .*: c\.h5: sample 1 \(pressure, array 'u', at y 4, x 5: nan"):
        converted(tmp_path, tmp_path / "set")
    converted(tmp_path, tmp_path / "set", bad="omit", test=2)
    assert len(by_origin(tmp_path / "set")) == 11 and ("c.h5", 1) not in by_origin(tmp_path / "set")


def test_parameters_of_each_file_belong_to_its_samples(tmp_path):
    pde = build_pde("heat", {"frames": 4})
    drawn = foreign.truths(pde, foreign.WAVE.grid(8), 6)
    plain(tmp_path / "a.h5", u=drawn[:4], alpha=0.001, table=1 + np.arange(8.0).reshape(4, 2))
    plain(tmp_path / "b.h5", u=drawn[4:], alpha=np.array([0.002, 0.003]), table=5 + np.arange(4.0).reshape(2, 2))
    done = converted(tmp_path, tmp_path / "set", "heat", test=0)
    shards = ShardSet(tmp_path / "set", "train")
    assert [shards.meta(n)["params"]["diffusivity"] for n in range(6)] == [0.001] * 4 + [0.002, 0.003]
    assert done.pde.params.diffusivity_high == 0.003
    converted(tmp_path, tmp_path / "other", "heat", test=0, parameters={"diffusivity": "table:1"}, force="true")
    shards = ShardSet(tmp_path / "other", "train")
    assert [shards.meta(n)["params"]["diffusivity"] for n in range(6)] == [2, 4, 6, 8, 6, 8]


def test_files_that_differ_are_named(tmp_path, fields):
    times = np.linspace(0, 0.3, 4)
    wave = foreign.truths(foreign.WAVE, foreign.WAVE.grid(8), 4)
    first = plain(tmp_path / "a.h5", u=wave, t=times, c=1.0)
    cases = [
        ({"u": wave, "t": 2 * times, "c": 1.0}, "its times are 4 from 0 to 0.6"),
        ({"u": wave, "t": [0, 0.104, 0.2, 0.3], "c": 1.0}, "its times are 4 from 0 to 0.3, number 1 is 0.104"),
        ({"u": wave, "c": 1.0}, "its times are none"),
        ({"u": wave[:, :, :7], "t": times, "c": 1.0}, "displacement has [T, Y, X] of [4, 7, 8]"),
        ({"data": wave, "t": times, "c": 1.0}, "displacement is array 'data'"),
        ({"u": wave, "t": times}, "of the number 'c' it has none"),
    ]
    for i, (arrays, difference) in enumerate(cases):
        other = plain(tmp_path / f"b{i}.h5", **arrays)
        with pytest.raises(UserError) as error:
            converted(f"{first},{other}", tmp_path / "set", "wave")
        has(str(error.value), f"{other}: {difference}", f"{first} has", "must agree")
    plain(tmp_path / "b.npz", u=wave, t=times, c=1.0)
    with pytest.raises(UserError, match=r"b\.npz: its layout is npz"):
        converted(f"{first},{tmp_path / 'b.npz'}", tmp_path / "set", "wave")


def test_attributes_of_each_file_are_checked_and_the_file_is_named(tmp_path):
    times = np.linspace(0, 0.3, 4)
    wave = foreign.truths(foreign.WAVE, foreign.WAVE.grid(8), 4)
    cases = (
        ("t", {"units": "hours"}, "the unit of 't' is 'hours', {first} has ''"),
        ("c", {"units": "m/h"}, "the unit of 'c' is 'm/h', {first} has ''"),
        ("u", {"gain": 0.5}, "array 'u' has an attribute gain=0.5"),
        ("t", {"scale_factor": 10.0}, "its times are 4 from 0 to 3"),
    )
    for n, (array, attributes, difference) in enumerate(cases):
        folder = tmp_path / str(n)
        folder.mkdir()
        first, other = (plain(folder / f"{i}.h5", u=wave + i, t=times, c=1.0) for i in range(2))
        with h5py.File(other, "r+") as file:
            file[array].attrs.update(attributes)
        with pytest.raises(UserError) as error:
            converted(folder, tmp_path / "set", "wave")
        has(str(error.value), f"{other}: {difference.format(first=first)}")


def test_a_set_is_not_written_into_the_folder_of_its_sources(tmp_path, fields):
    paths = three(tmp_path, fields)
    for source in (tmp_path, paths["b"]):
        with pytest.raises(UserError, match="the folder of the files that are converted"):
            converted(source, tmp_path)


def test_the_worst_sample_is_named_by_its_file(tmp_path):
    pde = build_pde("helmholtz", {"wavenumber": 1.0})
    drawn = foreign.truths(pde, pde.grid(17), 40)
    drawn[23, 1] = drawn[5, 1]
    for name, part in (("a", drawn[:20]), ("b", drawn[20:])):
        plain(tmp_path / f"{name}.npz", source=part[:, 0], solution=part[:, 1])
    done = converted(tmp_path, tmp_path / "set", "helmholtz", test=4)
    quality = measure_quality(tmp_path / "set", done.manifest, done.pde, done.grid)
    assert any("in sample 3 of b.npz" in line for line in quality.warnings(done.pde))


def test_which_files_an_argument_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("b.h5", "a.h5", "odd,name[1].h5", ".hidden.h5", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").mkdir()

    def names(word):
        return [path.name for path in find_files("source", word)]

    assert names("~") == ["a.h5", "b.h5", "odd,name[1].h5"]
    assert names("~/*.h5") == ["a.h5", "b.h5", "odd,name[1].h5"]
    assert names("~/odd,name[1].h5") == ["odd,name[1].h5"]
    assert names("['~/b.h5', \"~/a.h5\"]") == ["b.h5", "a.h5"]
    for word, message in (
        ("s3://bucket/a.h5", "an address"),
        ("~/a.h5,s3://bucket/a.h5", "an address"),
        ("~/d.h5", "no such file"),
        ("~/*.npz", "no file matches this pattern"),
        ("~/empty", "a folder without a file that ends in"),
        ("~/a.h5,~/a.h5", "twice"),
        ("~/a.h5,~", "twice"),
        ("~nobody-of-this-name/a.h5", "no home folder is known for ~nobody-of-this-name"),
        (",", "names no file"),
    ):
        with pytest.raises(UserError) as error:
            find_files("source", word)
        has(str(error.value), "source=", message)
    paths = [tmp_path / "x" / "a.h5", tmp_path / "y" / "a.h5"]
    assert short_names(paths) == ["x/a.h5", "y/a.h5"] and short_names(paths[:1]) == ["a.h5"]


def test_a_tilde_in_out_is_the_home_folder(tmp_path, monkeypatch, fields):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = plain(tmp_path / "a.npz", a=fields[:, 0], u=fields[:, 1])
    converted(path, "~/set")
    assert (tmp_path / "set" / "manifest.json").is_file() and not (tmp_path / "~").exists()
