"""One parser and one error boundary: help and mistakes without torch, one line for a mistake, a traceback for a bug."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pidscale.app import parser
from pidscale.app.errors import TRAIN
from pidscale.app.main import main
from pidscale.config import UserError
from pidscale.convert.request import ConversionRequest
from pidscale.generator.student import FIELD_STEPS, STARTED_STEPS
from pidscale.generator.tasks.descend import OPTIMISERS
from pidscale.generator.tasks.learn_start import Learning
from pidscale.generator.tasks.observations import TASKS
from pidscale.generator.tasks.search import Search
from pidscale.models.precondition import HALVES
from tests.app.conftest import Run, run_without
from tests.scripts import LAUNCH, ROOT

SETTINGS = ("make-shards", "train", "make-endpoints", "distill", "evaluate", "demo")
COMMANDS = (*SETTINGS, "convert", "shards", "sample", "export", "push", "show", "runs", "solve", "learn-start")
HELP = [["--help"], *([name, "--help"] for name in COMMANDS), ["shards", "verify", "-h"], ["--version"]]
MISTAKES = [
    [],
    ["trian"],
    ["--nonsense"],
    ["solve", "sideways"],
    ["sample", "-n", "4"],
    ["sample", "--student", "x", "-n", "many", "--out", "y.npz"],
    ["show"],
    ["shards", "mend", "x"],
    ["train", "--step=3"],
    ["train", "teacher.stepz=3"],
    ["distill", "modle=unet_tiny"],
    ["demo", "--config-dir", "nowhere", "run.name=x"],
    ["make-shards", "data.train=0"],
]


def test_help_is_printed_without_torch(tmp_path: Path) -> None:
    code = f"""
for words in {HELP!r}:
    try:
        main(words)
    except SystemExit as ended:
        print("ended with", ended.code, flush=True)
"""
    found = run_without(["torch", "numpy", "ray", "deepspeed", "matplotlib"], code, tmp_path)
    assert found.returncode == 0 and not found.stderr, found.stderr
    assert found.stdout.count("ended with 0\n") == len(HELP)
    for command in COMMANDS:
        assert f"usage: pidscale {command}" in found.stdout
    assert found.stdout.count('\n  run.folder="runs"  ') == len(SETTINGS)  # every setting, with its value and meaning
    assert list(tmp_path.iterdir()) == []


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pidscale", "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.startswith("pidscale ") and not done.stderr


def test_help_without_hydra_says_what_to_install(base_only: Run) -> None:
    found = base_only("distill", "--help")
    assert found.returncode == 0 and "usage: pidscale distill" in found.stdout
    assert "pip install 'pidscale[train]'" in found.stdout and not found.stderr


def test_wrong_words_are_one_line_without_torch(tmp_path: Path) -> None:
    code = f"for words in {MISTAKES!r}:\n    assert main(words) == 2, words"
    found = run_without(["torch", "numpy", "ray", "deepspeed", "matplotlib"], code, tmp_path)
    assert found.returncode == 0 and not found.stdout, found.stderr
    lines = found.stderr.splitlines()
    assert len(lines) == len(MISTAKES) and all(line.startswith("error: ") for line in lines), found.stderr
    assert all("--help` lists the arguments" in line for line in lines[:9])
    assert "teacher.stepz: unknown setting; did you mean 'steps'?" in lines[9] and "did you mean 'model'?" in lines[10]
    assert "--config-dir=nowhere: no such folder" in lines[11] and "data.train=0" in lines[12]
    assert list(tmp_path.iterdir()) == []


def test_settings_may_stand_on_both_sides_of_an_option(tmp_path: Path) -> None:
    asked = parser.parse(["train", "run.name=x", "--config-dir", str(tmp_path), "model=fno_small", "pde=heat"])
    assert asked.words == ["run.name=x", "model=fno_small", "pde=heat"] and asked.config_dir == tmp_path
    assert asked.phases == ("teacher",) and asked.config == "config" and asked.module == "train"


def test_the_parser_says_of_the_library_what_is_so() -> None:
    """What it must not import for the sake of a help text, it repeats."""
    assert parser.TASKS == TASKS and tuple(OPTIMISERS) == parser.OPTIMISERS
    assert ("fp32", *HALVES) == parser.PRECISIONS
    assert {field.name: field.default for field in fields(Search) if field.name in parser.SEARCH} == parser.SEARCH
    assert {field.name: field.default for field in fields(Learning) if field.name in parser.LEARNING} == parser.LEARNING
    assert f"; {STARTED_STEPS} from a start network" in inspect.getsource(parser)
    assert f"(default {FIELD_STEPS}; 0 for posterior samples)" in inspect.getsource(parser)
    for field in fields(ConversionRequest):
        shown = f"{field.name}=" if isinstance(field.default, (bool, int, float, str)) else f"{field.name}"
        assert f" {shown}" in parser._CONVERT, field.name
        if isinstance(field.default, (int, float, str)):
            assert f"{shown}{str(field.default).lower()} " in parser._CONVERT, field.name


@pytest.mark.parametrize(
    "command", [name for name in COMMANDS if name not in ("sample", "export", "push", "show", "runs")]
)
def test_a_script_of_the_checkout_is_the_command(command: str) -> None:
    name = "train_teacher" if command == "train" else command.replace("-", "_")
    assert f'main(["{command}", *sys.argv[1:]])' in (LAUNCH / f"{name}.py").read_text()


# ---- the error boundary


def raising(monkeypatch: pytest.MonkeyPatch, module: str, error: BaseException) -> None:
    def run(asked: object) -> None:
        raise error

    monkeypatch.setattr(f"pidscale.app.{module}.run", run)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("x: wrong\n  in two lines\x1b"), "x: wrong in two lines?"),
        (
            FileNotFoundError(2, "No such file or directory", "/a/b"),
            "/a/b: No such file or directory; check the file, ",
        ),
        (
            OSError("h5py cannot open it"),
            "show: h5py cannot open it; check the file, its permissions and the free space",
        ),
        (MemoryError(), "out of memory (of this machine); use a machine with more memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "out of memory (DefaultCPUAllocator: can't",
        ),
        (
            ModuleNotFoundError("No module named 'PIL.Image'", name="PIL.Image"),
            "pidscale show: the package pillow is not installed; run `pip install 'pidscale[train]'`",
        ),
    ],
)
def test_what_is_no_bug_is_one_line(error: Exception, line: str, monkeypatch, capsys) -> None:
    raising(monkeypatch, "show", error)
    assert main(["show", "x"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {line}") and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes"), KeyError("width"), ModuleNotFoundError("No module named 'q'", name="q")]
)
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch) -> None:
    raising(monkeypatch, "show", error)
    with pytest.raises(type(error)) as raised:
        main(["show", "x"])
    assert raised.value is error


def test_an_error_without_a_file_keeps_its_traceback_in_a_run(monkeypatch) -> None:
    raising(monkeypatch, "train", ConnectionError("of a bug"))
    with pytest.raises(ConnectionError, match="of a bug"):
        main(["train"])


@pytest.mark.parametrize(
    ("arguments", "path", "advice"),
    [
        ([], "{0}/file/run", "no setting leads to this path; check HOME and TMPDIR, free space and permissions"),
        (["distill.endpoints={0}/file"], "{0}/file/train-00000.tar", "check distill.endpoints={0}/file"),
        (["run.folder={0}", "data.path={0}/set"], "{0}/set/x", "check data.path={0}/set, run.folder={0}"),
        (["data.path=s3://bucket/set"], "s3://bucket/set/x", "no setting leads to this path"),
    ],
)
def test_an_error_of_a_file_names_the_settings_that_lead_there(
    arguments, path, advice, tmp_path, monkeypatch, capsys
) -> None:
    raising(monkeypatch, "train", NotADirectoryError(20, "Not a directory", path.format(tmp_path)))
    assert main(["train", *(argument.format(tmp_path) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path.format(tmp_path)}: Not a directory; {advice.format(tmp_path)}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train"], "run the same command again to continue"),
        (["shards", "verify", "x"], "run the same command again to start from the beginning"),
        (["sample", "--student", "x", "-n", "1", "--out", "y.npz"], "nothing was written"),
    ],
)
def test_signals_end_every_command_with_one_line(number, status, words, line, tmp_path) -> None:
    code = f"""
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background ignore
work = types.ModuleType("work")
work.run = lambda asked: (print("at work", flush=True), time.sleep(60))
sys.modules["pidscale.app.{words[0]}"] = work
from pidscale.app.main import main
raise SystemExit(main({words!r}))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, errors) == (status, f"interrupted; {line}\n")


def test_signals_are_as_before_after_a_command(capsys) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["show", "nowhere"]) == 2
    assert signal.getsignal(signal.SIGTERM) is before


# ---- packages that are not installed


def test_every_package_of_the_extra_is_known_by_its_name() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(TRAIN.values()) == {Requirement(line).name for line in extras["train"]}


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["train"], "hydra-core"),
        (["convert", "source=x", "out=y", "pde=darcy"], "hydra-core"),
        (["shards", "verify", "x"], "xxhash"),
    ],
)
def test_a_package_that_is_missing_is_one_line(words: list[str], package: str, base_only: Run) -> None:
    found = base_only(*words)
    said = f"pidscale {words[0]}: the package {package} is not installed; run `pip install 'pidscale[train]'`"
    assert found.returncode == 2 and found.stderr == f"error: {said}\n" and not found.stdout


@pytest.mark.parametrize(("blocked", "words"), [("ray", ["train"]), ("deepspeed", ["distill"]), ("ray", ["demo"])])
def test_a_package_of_the_training_stack_that_is_missing_is_one_line(blocked, words, tmp_path) -> None:
    found = run_without([blocked], f"raise SystemExit(main({words!r}))", tmp_path)
    assert found.returncode == 2 and f"the package {blocked} is not installed" in found.stderr, found.stderr
    assert found.stderr.count("\n") == 1


# ---- the scripts of the checkout


@pytest.mark.parametrize(
    ("script", "argument", "said"),
    [
        ("train_teacher", "teacher.stepz=3", "teacher.stepz: unknown setting; did you mean 'steps'?"),
        (
            "make_shards",
            "data.path=s3://b/c",
            "data.path=s3://b/c: a set is made in a folder; make it there, then upload the folder",
        ),
    ],
)
def test_a_script_ends_with_one_line_and_leaves_nothing(tmp_path: Path, script: str, argument: str, said: str) -> None:
    command = [sys.executable, str(LAUNCH / f"{script}.py"), argument]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and result.stderr == f"error: {said}\n" and result.stdout == ""
    assert list(tmp_path.iterdir()) == []
