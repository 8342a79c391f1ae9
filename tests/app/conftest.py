"""The command in a process of its own, in which some packages cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pidscale.app.errors import TRAIN
from tests.scripts import ROOT

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
sys.path.insert(0, {root!r})
from pidscale.app.main import main
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def run_without(packages: Sequence[str], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code, which may call `main`, in a folder and in a process that cannot import these packages."""
    text = WITHOUT.format(blocked=tuple(packages), root=str(ROOT)) + code
    return subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def base_only(tmp_path: Path) -> Run:
    """Run a command line with torch, numpy and safetensors alone, in an empty folder."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        code = f"raise SystemExit(main({list(map(str, words))!r}))"
        return run_without([*TRAIN, "fsspec", "s3fs"], code, tmp_path)

    return run
