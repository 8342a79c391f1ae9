"""The notebooks of docs/notebooks: stored clean, run from first to last cell, true to their text and to their pages."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

from pidscale.config import DataSettings, PdeSettings
from tests.commands import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NAMES = ("first_hour", "own_data", "sensors")
PICTURE = re.compile(r"^!\[([^\]]+)\]\((\w+\.png)\)$", re.MULTILINE)
OUTPUTS = re.compile(r"^(```text\n.*?\n```|!\[[^\]]+\]\(\w+\.png\))\n\n?", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/notebooks/run.py, as a module."""
    spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Run a notebook by the command, once, in a folder of its own; PATH has no environment, as a reader's server may not."""
    done: dict[str, Any] = {}

    def run(name: str) -> Any:
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            command = [sys.executable, str(FOLDER / "run.py"), name, "--out", "out"]
            environment = {
                "PATH": "/usr/bin:/bin",
                "OMP_NUM_THREADS": "1",
                "HOME": str(folder),
                "PYTHONPATH": str(ROOT),
            }
            result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1100)
            assert result.returncode == 0 and not result.stderr, result.stderr[-3000:]
            done[name] = nbformat.read(folder / "out" / f"{name}.ipynb", as_version=4)
        return done[name]

    return run


def test_these_are_all() -> None:
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_they_are_stored_without_outputs(name: str, script: ModuleType) -> None:
    stored = (FOLDER / f"{name}.ipynb").read_text()
    clean = script.text_of(script.cleaned(script.read(name), name))
    assert stored == clean, "python docs/notebooks/run.py --clean takes outputs out"
    nbformat.validate(script.read(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_cells_of_its_notebook_and_its_pictures(name: str, script: ModuleType) -> None:
    expected, _ = script.page_of(script.read(name), name)
    page = (FOLDER / f"{name}.md").read_text()
    assert OUTPUTS.sub("", page).strip() == expected.strip(), "python docs/notebooks/run.py --pages writes it again"
    shown = [file for _, file in PICTURE.findall(page)]
    assert shown and sorted(shown) == sorted(path.name for path in FOLDER.glob(f"{name}_*.png"))
    assert not re.search(r"/(tmp|home|root)/", page)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_without_an_error_or_noise(name: str, executed: Callable[[str], Any]) -> None:
    pictures = 0
    for cell in executed(name).cells:
        refused = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", []):
            noisy = output.output_type == "error" or output.get("name") == "stderr"
            assert refused or not noisy, (cell.source, output)
            is_picture = "image/png" in output.get("data", {})
            assert not is_picture or cell.metadata.get("alt"), f"no alternative text: {cell.source}"
            pictures += is_picture
    assert pictures == len(PICTURE.findall((FOLDER / f"{name}.md").read_text()))


def said(notebook: Any, part: str) -> str:
    """What the cell whose source has this part printed."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and part in cell.source]
    return "".join(output.get("text", "") for output in cell.outputs)


def verdict(notebook: Any, out: str) -> tuple[float, float]:
    """The l2 residuals of data and null solution in the verdict on a set."""
    text = said(notebook, f"out=work/{out} ")
    data, null = (re.search(rf"{row} +(\S+)", text) for row in ("these data", "null solution"))
    assert data is not None and null is not None, text
    return float(data[1]), float(null[1])


@pytest.mark.slow
def test_the_verdicts_are_those_that_the_text_claims(executed: Callable[[str], Any]) -> None:
    notebook = executed("own_data")
    refused = said(notebook, "out=work/first ")
    assert "another boundary condition" in refused and "status 2" in refused
    for name in ("second", "third"):
        data, null = verdict(notebook, name)
        assert data > null
    assert "differs by 6" in said(notebook, "out=work/second ")
    assert "set scale.solution=-0.5" in said(notebook, "out=work/third ")
    right, null = verdict(notebook, "plates")
    assert 0.005 < right / null < 0.02
    assert verdict(notebook, "fine")[0] == pytest.approx(right / 4, rel=0.1)
    assert "0 findings" in said(notebook, "verify")


@pytest.mark.slow
def test_the_tiny_run_is_as_the_text_says_and_the_demo_is_larger(executed: Callable[[str], Any]) -> None:
    notebook = executed("first_hour")
    kinds = ("trivial", "student", "student-head0")
    rows = [line.split() for line in said(notebook, "%%pidscale demo").splitlines()]
    error = {row[0]: float(row[5]) for row in rows if len(row) > 5 and row[0] in kinds}
    assert error["student"] < 0.1 * error["student-head0"] < 0.1 * error["trivial"]
    between = [int(share) for share in re.findall(r"(\d+)% of the points", said(notebook, "for calls in"))]
    left = [float(value) for value in re.findall(r"residual l2 (\S+)", said(notebook, "for calls in"))]
    assert between[-1] < between[0] and left == sorted(left) and left[0] < left[-1]
    text = "".join(cell.source for cell in notebook.cells).replace("\n", " ")
    assert f"{PdeSettings().points} points, {DataSettings().train} fields" in text
    duration = "10 to 20 minutes on two cores"
    assert duration in text and duration in (ROOT / "README.md").read_text()


def test_a_cell_that_fails_is_one_line_and_a_status(tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    (tmp_path / "students").symlink_to(ROOT / "students")
    (folder / "run.py").write_text((FOLDER / "run.py").read_text())
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0"), nbformat.v4.new_code_cell("2")])
    nbformat.write(notebook, folder / "bad.ipynb")
    command = [sys.executable, str(folder / "run.py"), "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.startswith("error: bad.ipynb: ZeroDivisionError: division by zero; ")
    assert (tmp_path / "out" / "bad.ipynb").is_file() and done.stderr.count("\n") == 1
