"""`%pidscale`: the command line in a real shell of IPython, with its output, its errors and its interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from pidscale.app.notebook import command_words
from pidscale.config import UserError
from tests.commands import ROOT


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell whose PATH has no pidscale, as that of a server that was started elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell()
    assert shell.run_cell("%load_ext pidscale").success
    yield shell
    shell.history_manager.end_session()


def test_its_words_are_those_of_a_command_line() -> None:
    text = "convert source='my file.npz'  # theirs\n  axes.u=NXY \\\n distill.weights={l2: 1}\n"
    assert command_words(text) == ["convert", "source=my file.npz", "axes.u=NXY", "distill.weights={l2:", "1}"]
    with pytest.raises(UserError, match="close the quote"):
        command_words("show 'a")


def test_it_shows_the_output_and_takes_variables_and_several_lines(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["folder"] = ROOT / "students" / "darcy"
    assert shell.run_cell("%pidscale show {folder}").success
    said = capsys.readouterr()
    assert "darcy: student" in said.out and not said.err
    assert shell.run_cell(f"%%pidscale sample\n--student {ROOT}/students/darcy\n-n 1 --out a.npz").success
    assert Path("a.npz").is_file()


def test_a_command_that_fails_ends_the_cell_in_one_line(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("%pidscale show nowhere\nafter = 1")
    assert not result.success and "after" not in shell.user_ns
    assert str(result.error_in_exec) == "pidscale show ended with status 2"
    said = capsys.readouterr()
    assert said.err.splitlines()[0].startswith("error: nowhere") and "Traceback" not in said.err + said.out


def test_an_interrupt_reaches_the_command_once_and_waits_for_its_end(tmp_path: Path) -> None:
    code = """
from pidscale.app.notebook import run_command
run_command(["make-shards", "pde.points=64", "data.path=set", "data.train=100000", "data.test=1", "data.samples_per_shard=4"])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 200
        while not list(tmp_path.glob("set/train-*.tar")):
            assert time.monotonic() < until and process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    lines = errors.splitlines()
    assert lines[0].startswith("interrupted; "), errors
    assert lines[-1].endswith("pidscale make-shards was interrupted, and ended with status 130")
    assert "KeyboardInterrupt" not in errors
