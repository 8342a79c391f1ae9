"""`pidscale shards`: what it prints, what it writes, and its exit status; twice by its script, in a process of its own."""

from __future__ import annotations

import shutil
import sys

import pytest
from PIL import Image

from pidscale.app.main import main
from pidscale.make.make import make_shard_set
from pidscale.pde import build_pde
from tests.scripts import ROOT, finish, start


def process(folder, *words, code=0):
    """Standard output and standard error of the script, run in a folder."""
    log = folder / "said.log"
    said, errors = finish(start("shards", [str(word) for word in words], log), log, code, timeout=60)
    for one in (log, log.with_suffix(".err")):
        one.unlink()
    return said, errors


@pytest.fixture
def shards(tmp_path, monkeypatch, capsys):
    """The same within this process."""
    monkeypatch.chdir(tmp_path)

    def run(*words, code=0):
        assert main(["shards", *map(str, words)]) == code
        said, errors = capsys.readouterr()
        assert all(line.startswith("error: ") for line in errors.splitlines()), errors
        return said, errors

    return run


@pytest.fixture
def copy(small_shards, tmp_path):
    return shutil.copytree(small_shards, tmp_path / "darcy")


def test_a_damaged_index_is_found_written_again_and_found_true(shards, copy, tmp_path):
    index = copy / "train-00001.index.json"
    before = index.read_bytes()
    index.write_bytes(before.replace(b'"seed":17', b'"seed":18'))
    (copy / "test-00000.index.json").unlink()
    said, errors = process(tmp_path, "verify", copy, code=2)
    assert errors.count("\n") == 2 and "repair-index" in errors and said.splitlines()[-1].endswith(" 2 findings")
    said, errors = shards("repair-index", copy)
    assert said.splitlines()[-1] == f"{copy}: 2 indices were true, 2 written again, 0 left" and not errors
    assert index.read_bytes() == before and f"written again: {index}" in said
    said, errors = shards("verify", copy)
    assert not errors and f"{copy}: 64 samples, " in said.splitlines()[-1]


def test_what_cannot_be_repaired_is_an_error(shards, copy):
    (copy / "train-00001.index.json").unlink()
    (copy / "train-00001.tar").write_bytes(b"nothing")
    said, errors = shards("repair-index", copy, code=2)
    assert errors.count("\n") == 1 and "train-00001.tar: 7 bytes" in errors
    assert said.endswith("3 indices were true, 0 written again, 1 left\n")


def test_a_card_and_a_picture_are_made_where_one_is(shards, copy, tmp_path):
    said, _ = shards("show", f"{copy}/")
    assert said.startswith(f"{copy}: shard set") and said.splitlines()[-1].split() == ["picture", "darcy.png"]
    with Image.open(tmp_path / "darcy.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    shards("show", copy, "--out", "other.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["darcy", "darcy.png", "other.png"]


def test_an_equation_of_ones_own_is_found_in_the_folder_where_it_is_named(shards, tmp_path, monkeypatch):
    shutil.copy(ROOT / "docs" / "examples" / "fisher.py", tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        pde = build_pde("fisher:Fisher", {"frames": 4})
        make_shard_set(pde, tmp_path / "set", {"train": 4}, grid=pde.grid(12), seed=1, parallel=False)
        said, _ = shards("show", "set", "--equation", "fisher:Fisher")
        assert said.splitlines()[-1].split() == ["picture", "set.png"]
    said, _ = process(tmp_path, "verify", "set", "--equation", "fisher:Fisher")
    assert "note" not in said
    for command in ("show", "verify"):
        _, errors = shards(command, "set", "--equation", "heat", code=2)
        assert errors.count("\n") == 1 and "a set of fisher:Fisher, not of heat; name another set" in errors
    sys.modules.pop("fisher")
    said, _ = shards("verify", "set")
    assert "note: residuals not checked" in said and "--equation" in said
    said, _ = shards("show", "set")
    assert said.splitlines()[-1].startswith("note: no picture") and "fisher:Fisher" in said
    _, errors = shards("verify", "set", "--equation", "nowhere:Thing", code=2)
    assert errors.count("\n") == 1 and "No module named 'nowhere'" in errors


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "required"),
        (["mend", "x"], "invalid choice: 'mend'"),
        (["verify"], "PATH"),
        (["verify", "nowhere"], "nowhere: no such folder"),
        (["show", "x", "--out", "x.jpg"], "--out=x.jpg: expected a name that ends in .png"),
        (["repair-index", "s3://bucket/set"], "s3://bucket/set: an index can only be written"),
    ],
)
def test_a_mistake_is_one_line(shards, tmp_path, words, part):
    _, errors = shards(*words, code=2)
    assert errors.count("\n") == 1 and part in errors, errors
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["shards", "--help"])
    said = capsys.readouterr().out
    assert not ended.value.code
    assert all(word in said for word in ("verify PATH", "show PATH [--out FILE.png]", "repair-index PATH"))
