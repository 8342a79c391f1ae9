"""The rules of the house: short files, the import order, nothing in the repository that does not belong there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400
HOME = re.compile(r"(?<![\w.])/(?:(?:home|Users)/(?!ray\b)\w|root/)")  # /home/ray is in Ray's container images


def _git(*arguments: str) -> list[str]:
    command = ["git", "-C", str(ROOT), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr.strip()} (run the tests in a git clone)"
    return [name for name in result.stdout.split("\0") if name]


def _files(*patterns: str) -> list[Path]:
    """Tracked files, and new ones that git does not ignore."""
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns)
    return [ROOT / name for name in dict.fromkeys(names) if (ROOT / name).is_file()]


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_no_python_file_is_long() -> None:
    lengths = {file.relative_to(ROOT): len(file.read_text().splitlines()) for file in _files("*.py")}
    assert lengths, "git lists no Python files"
    assert not {str(file): n for file, n in lengths.items() if n > LONGEST}


def test_imports_keep_their_order() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(f.relative_to(ROOT)) for f in _files("pidscale/*.py") if not ast.get_docstring(ast.parse(f.read_text()))
    ]
    assert not silent


def test_every_room_is_a_package() -> None:
    """Folders without __init__.py escape the import linter."""
    rooms = {file.parent for file in _files("pidscale/*.py")}
    assert not [str(room.relative_to(ROOT)) for room in rooms if not (room / "__init__.py").is_file()]


def test_no_ignored_file_is_tracked() -> None:
    assert not _git("ls-files", "-z", "--cached", "--ignored", "--exclude-standard")


def test_no_home_folder_is_named() -> None:
    named = []
    for file in _files():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        named += [f"{file.relative_to(ROOT)}:{n}" for n, line in enumerate(text.splitlines(), 1) if HOME.search(line)]
    assert not named


@pytest.mark.parametrize("line", ["cd /~home/ada/pidscale", "see /~Users/ada", "'/~root/x'"])
def test_home_folders_are_recognised(line: str) -> None:
    assert HOME.search(line.replace("~", ""))  # spelled so that this file names none itself
    assert not HOME.search("/home/ray/anaconda3 shards/home/x chroot/y docs/~root/z".replace("~", ""))


def test_the_base_needs_three_libraries_only() -> None:
    names = {Requirement(line).name for line in _project()["dependencies"]}
    assert names == {"torch", "numpy", "safetensors"}


def test_the_pinned_versions_are_within_the_declared_ranges() -> None:
    project = _project()
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    declared = {requirement.name: requirement.specifier for requirement in map(Requirement, lines)}
    text = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in text if line and not line.startswith("#"))
    assert declared.keys() == pinned.keys()
    assert not {name: version for name, version in pinned.items() if not declared[name].contains(version)}
