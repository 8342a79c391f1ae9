"""What an installation holds: the command and its configs, found from a wheel in another folder than the checkout's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pidscale.app.compose import CONFIGS
from tests.scripts import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what git knows of this checkout: a build leaves files beside what it builds."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed += ["pyproject.toml", "setup.py", "README.md", "LICENSE", "pidscale", "configs"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*build, "-w", str(source.parent)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(source.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder that the wheel is installed to."""
    target = wheel.parent / "target"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_wheel_holds_every_module_every_config_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("/entry_points.txt"))
        assert "pidscale = pidscale.app.main:main" in archive.read(entry_points).decode().splitlines()
    configs = {f"pidscale/configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "pidscale").rglob("*.py")}
    assert configs | modules | {"pidscale/py.typed"} == {name for name in names if name.startswith("pidscale/")}


def test_an_installation_composes_settings_in_any_folder(installed: Path, tmp_path: Path) -> None:
    code = "import pidscale.app.compose as c; print(c.CONFIGS); print(c.settings_from(['pde=heat'], 'demo').run)"
    done = run(installed, tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(installed / "pidscale" / "configs"),
        "RunSettings(name='demo', folder='runs', scratch='', seed=0, resume='auto')",
    ]


def test_the_command_of_an_installation_starts(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "bin" / "pidscale")
    done = run(installed, tmp_path, command, "demo", "--help")
    assert done.returncode == 0 and '\n  run.name="demo" ' in done.stdout, done.stderr
    done = run(installed, tmp_path, command, "train", "data.path=nowhere")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "`pidscale make-shards`" in done.stderr, (
        done.stderr
    )
    assert list(tmp_path.iterdir()) == []
