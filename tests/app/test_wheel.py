"""What a release holds: the wheel, the same from a source distribution, and what works where the wheel alone is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pidscale.app.compose import CONFIGS
from tests.scripts import ROOT

PARTS = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md")
BASE = ("torch", "numpy", "safetensors")
STUDENT = (  # tests that need these alone
    *(f"generator/test_{name}.py" for name in ("artifact", "load", "params", "observations", "readings", "more_calls")),
    "generator/test_head.py",
    *(f"ops/test_{name}.py" for name in ("interpolate", "krylov", "grid_window")),
    "models/test_precondition.py",
)
BUILD_SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


def done(command: list[str], folder: Path, seconds: int = 300, **environment: str) -> str:
    """Run a command that must succeed, without this checkout on the path, and return what it printed."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    ended = subprocess.run(
        command, cwd=folder, env=own | environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def wheel_of(source: Path, folder: Path) -> Path:
    """Build a wheel from a folder or a source distribution."""
    build = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation"]
    done([*build, "-w", str(folder)], folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git knows of this checkout: a build leaves files beside what it builds."""
    source = tmp_path_factory.mktemp("release") / "source"
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed += [*PARTS, "LICENSE", "pidscale", "configs", "tests"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    (source.parent / "wheel").mkdir()
    return wheel_of(source, source.parent / "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder that the wheel is installed to, beside all packages of this environment."""
    target = wheel.parent / "target"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done(install, wheel.parent)
    return target


def needed(*names: str) -> list[Distribution]:
    """Distributions of this environment and all that they need, without extras."""
    found: dict[str, Distribution] = {}
    wanted = list(names)
    while wanted:
        key = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if key not in found:
            found[key] = distribution(key)
            lines = map(Requirement, found[key].requires or ())
            wanted += [line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
    return list(found.values())


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, its three packages and pytest, and nothing else.

    The packages are linked from this environment; pip then checks that the wheel needs no other.
    """
    folder = tmp_path_factory.mktemp("alone") / "environment"
    done([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    packages = next(folder.glob("lib/python*/site-packages"))
    for one in needed(*BASE, "pytest"):
        for name in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            (packages / name).symlink_to(one.locate_file(name))
    python = folder / "bin" / "python"
    done([sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", str(wheel)], folder.parent)
    return python


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_holds_every_module_every_config_and_the_command(wheel: Path) -> None:
    files = contents(wheel)
    entry_points = next(name for name in files if name.endswith("/entry_points.txt"))
    assert "pidscale = pidscale.app.main:main" in files[entry_points].decode().splitlines()
    configs = {f"pidscale/configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "pidscale").rglob("*.py")}
    assert configs | modules | {"pidscale/py.typed"} == {name for name in files if name.startswith("pidscale/")}


def test_a_source_distribution_builds_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    done([sys.executable, "-c", BUILD_SDIST, str(tmp_path)], source)
    (archive,) = tmp_path.glob("pidscale-*.tar.gz")
    with zipfile.ZipFile(wheel) as whole:
        assert whole.testzip() is None
    listed = subprocess.run(["tar", "tzf", str(archive)], capture_output=True, text=True, check=True).stdout.split()
    names = {name.partition("/")[2] for name in listed}
    assert {*PARTS, "LICENSE"} <= names and not any(name.startswith("tests") for name in names)
    assert contents(wheel_of(archive, tmp_path)) == contents(wheel)


def test_a_student_works_where_the_wheel_alone_is_installed(alone: Path, tmp_path: Path) -> None:
    """The command draws fields; what needs a further package is one line that names it."""
    (tmp_path / "students").symlink_to(ROOT / "students")
    command = str(alone.with_name("pidscale"))
    words = ["--student", "students/darcy", "-n", "2", "--out", "fields.npz"]
    assert "2 samples of darcy" in done([command, "sample", *words], tmp_path)
    assert (tmp_path / "fields.npz").stat().st_size > 2 * 2 * 32 * 32 * 4
    for package, further in {
        "matplotlib": ["sample", "--student", "students/darcy", "-n", "2", "--picture", "x.png"],
        "hydra-core": ["train", "data.path=nowhere"],
        "onnx": ["export", "--student", "students/darcy", "--out", "x.onnx"],
    }.items():
        ended = subprocess.run([command, *further], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and package in ended.stderr, ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fields.npz", "students"]


@pytest.mark.slow
def test_the_tests_of_a_student_pass_where_the_wheel_alone_is_installed(alone: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\naddopts = --import-mode=importlib\n")
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "made"), "-rs"]
    code = "import pidscale; print(pidscale.__file__)"
    assert str(alone.parent.parent) in done([str(alone), "-c", code], tmp_path)
    printed = done([str(alone), "-m", "pytest", *options, *(f"tests/{name}" for name in STUDENT)], tmp_path, 600)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped)", printed.splitlines()[-1])}
    assert counts["passed"] > 150, printed
    skipped = [line for line in printed.splitlines() if line.startswith("SKIPPED")]
    assert all("could not import 'scipy'" in line for line in skipped) and counts.get("skipped", 0) < 6, printed


def test_an_installation_composes_settings_in_any_folder(installed: Path, tmp_path: Path) -> None:
    code = "import pidscale.app.compose as c; print(c.CONFIGS); print(c.settings_from(['pde=heat'], 'demo').run)"
    assert done([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(installed)).splitlines() == [
        str(installed / "pidscale" / "configs"),
        "RunSettings(name='demo', folder='runs', scratch='', seed=0, resume='auto')",
    ]


def test_the_command_of_an_installation_starts(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "bin" / "pidscale")
    assert '\n  run.name="demo" ' in done([command, "demo", "--help"], tmp_path, PYTHONPATH=str(installed))
    ended = subprocess.run(
        [command, "train", "data.path=nowhere"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "`pidscale make-shards`" in ended.stderr
    assert list(tmp_path.iterdir()) == []
