"""Paths as users write them: home folders, addresses where a folder is needed, and folders that a job would lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidscale.app.parser import parse
from pidscale.config import Settings, UserError
from pidscale.paths import absolute, expanded, refuse_address, refuse_job_package, with_paths


def test_a_tilde_is_expanded_as_by_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home-of-a-test")
    assert expanded("~/a b", "out") == "/home-of-a-test/a b" and expanded(Path("~"), "out") == "/home-of-a-test"
    for name in ("./~/a", "a~b", "/x/~/y", "s3://b/~c", ""):
        assert expanded(name, "out") == name
    with pytest.raises(
        UserError, match=r"^out=~nobody_of_that_name/x: no home folder is known for ~nobody_of_that_name;"
    ):
        expanded("~nobody_of_that_name/x", "out")


@pytest.mark.parametrize("path", ["s3://b/x", "gs://b", "file:///x", Path("s3://b/x"), "abfs+x://y"])
def test_an_address_is_refused_even_as_pathlib_writes_it(path: str | Path) -> None:
    with pytest.raises(UserError, match=r"^run\.folder=.*: must be a folder$"):
        refuse_address(path, "run.folder", "must be a folder")


@pytest.mark.parametrize("path", ["runs", "/a:/b", "a b://c"[:3], "C:x", "x:/y"[:2], "été:1/2"])
def test_a_folder_is_not_an_address(path: str) -> None:
    refuse_address(path, "run.folder", "must be a folder")


def test_every_path_of_the_settings_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    seen: list[str] = []
    named = with_paths(Settings(), lambda path, key: seen.append(key) or f"~/{key}")
    assert seen == ["data.path", "run.folder"] and absolute(named).run.folder == str(tmp_path / "home" / "run.folder")
    assert absolute(Settings()).data.path == str(tmp_path / "shards" / "darcy32")


@pytest.mark.parametrize(
    "words", ["sample -n 1", "solve forward --input a.npy --out b.npz", "learn-start", "export --out a.onnx"]
)
def test_the_folder_of_a_student_is_expanded_on_the_command_line(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command writes beside a student lies in the home folder too, not in a folder called `~`."""
    monkeypatch.setenv("HOME", "/home-of-a-test")
    for form in (["--student", "~/x"], ["--student=~/x"]):
        assert parse([*words.split(), *form]).student == Path("/home-of-a-test/x")
    with pytest.raises(UserError, match=r"^--student=s3://b/x: an address of a remote store"):
        parse([*words.split(), "--student", "s3://b/x"])
    with pytest.raises(UserError, match=r"^--student: the path is empty; name a file or a folder"):
        parse([*words.split(), "--student", ""])


def test_a_path_in_the_copy_of_a_job_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "session/runtime_resources/working_dir_files/_ray_pkg_0123456789abcdef"
    package.mkdir(parents=True)
    monkeypatch.chdir(package)
    (tmp_path / "link").symlink_to(package)
    for path in ("runs", package / "runs", tmp_path / "link" / "runs"):
        with pytest.raises(UserError, match=r"^run\.folder=.*runs: lies in the copy .* absolute path on storage"):
            refuse_job_package(path, "run.folder")
    refuse_job_package(tmp_path / "runs", "run.folder")
