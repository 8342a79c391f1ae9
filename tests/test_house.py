"""The rules of the house: short files, the import order, nothing in the repository that does not belong there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FUNCTION, LOOP, FILE = 60, 100, 400  # lines
LOOPS = ("pidscale/teacher/loop.py", "pidscale/distill/loop.py")
MOST_ARGUMENTS = 3  # of a public function whose docstring needs no section for them
KEPT = re.compile("earlier versions|version 1")  # on a line that reads what these wrote
OLDER = ("pidscale/renamed.py", "tests/generator/test_load.py", "tests/run/test_phases.py", "tests/test_config.py")
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


def _functions(*patterns: str, nested: bool = True) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of these files with where it is; those within functions are omitted unless `nested`."""
    for file in _files(*patterns):
        tree = ast.parse(file.read_text())
        outer = [*tree.body, *(one for kind in tree.body if isinstance(kind, ast.ClassDef) for one in kind.body)]
        for node in ast.walk(tree) if nested else outer:
            if isinstance(node, ast.FunctionDef):
                yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_functions_fit_on_a_screen() -> None:
    """The two training loops, which read straight down the page, may have more lines."""
    long = []
    for where, node in _functions("*.py"):
        is_loop = where.split(":")[0] in LOOPS and node.name == "train"
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > (LOOP if is_loop else FUNCTION):
            long.append(f"{where}: {length} lines")
    assert not long


def test_files_of_many_lines_are_warned_of() -> None:
    lengths = {file.relative_to(ROOT): len(file.read_text().splitlines()) for file in _files("*.py")}
    assert lengths, "git lists no Python files"
    for file, count in lengths.items():
        if count > FILE:
            warnings.warn(f"{file}: {count} lines; does it know two things?", stacklevel=1)


def _called(node: ast.expr) -> str | None:
    """What a value calls, None where it is a plain name, number or the like."""
    calls = [one for one in ast.walk(node) if isinstance(one, (ast.Call, ast.ListComp, ast.DictComp, ast.GeneratorExp))]
    return (
        ast.unparse(calls[0].func) if calls and isinstance(calls[0], ast.Call) else "a comprehension" if calls else None
    )


def test_one_statement_is_one_assignment() -> None:
    """`a, b = f(x), g(y)` packs two statements into one; unpacking one value, or two alike, is fine."""
    packed = []
    for file in _files("pidscale/*.py", "benchmarks/*.py", "launch/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Tuple)
                and isinstance(node.targets[0], ast.Tuple)
            ):
                called = [_called(value) for value in node.value.elts]
                if any(called) and len(set(called)) > 1:
                    packed.append(f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert not packed


def test_public_functions_say_what_they_take() -> None:
    """Functions of more than three arguments have a section for them; pydoclint compares it with the signature.

    A method that several classes of a room have is described in one of them.
    """
    described, silent = set[tuple[str, str]](), dict[str, tuple[str, str]]()
    for where, node in _functions("pidscale/*.py", nested=False):
        arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        known = (where.split("/")[1], node.name)
        if "Args:" in (ast.get_docstring(node) or ""):
            described.add(known)
        elif not node.name.startswith("_") and node.name not in ("forward", "backward"):  # which torch describes
            own = [name for name in arguments if name not in ("self", "cls")]
            if len(own) > MOST_ARGUMENTS:
                silent[where] = known
    assert not {where for where, known in silent.items() if known not in described}


def test_imports_keep_their_order() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("folder", "other"), [("tests", "benchmarks"), ("benchmarks", "tests")])
def test_tests_and_benchmarks_import_nothing_of_each_other(folder: str, other: str) -> None:
    """What both need belongs to the package; tests run benchmarks as commands."""
    wrong = []
    for file in _files(f"{folder}/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{file.relative_to(ROOT)}: {name}" for name in names if name.split(".")[0] == other]
    assert not wrong


def test_every_module_that_is_to_be_run_exists() -> None:
    missing = []
    for file in _files("*.py", "*.md", "Makefile"):
        for line in file.read_text().splitlines():
            for name in re.findall(r"python -m ((?:benchmarks|pidscale)(?:\.[a-z_0-9]+)+)", line):
                path = ROOT / name.replace(".", "/")
                if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
                    missing.append(f"{file.relative_to(ROOT)}: {name}")
    assert not missing


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


def test_retired_words_do_not_come_back() -> None:
    """The glossary says what is written instead."""
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    lines = [line for line in glossary.split("## Retired words")[1].splitlines() if line.startswith("| `")]
    retired = [word for line in lines for word in re.findall(r"`([^`]+)`", line.rsplit(" | ", 1)[0])]
    assert len(retired) > 8
    pattern = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(retired)})(?![A-Za-z])", re.IGNORECASE)
    allowed = ("docs/glossary.md", "CHANGELOG.md", "LICENSE", *OLDER)
    found = []
    for file in _files("*.py", "*.md", "*.yaml", "*.toml", "Makefile"):
        name = str(file.relative_to(ROOT))
        if name not in allowed:
            lines = enumerate(file.read_text().splitlines(), 1)
            found += [
                f"{name}:{n}: {line.strip()[:100]}"
                for n, line in lines
                if pattern.search(line) and not KEPT.search(line)
            ]
    assert not found
