"""`pidscale solve`: what it prints, what it writes and its exit status; once by its script, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pidscale.app.main import main
from pidscale.generator.load import load_student
from pidscale.generator.tasks.readings import points
from tests.app.conftest import run_without
from tests.generator.made import POINTS, write_generator
from tests.scripts import ROOT

QUICK = ["--steps", "3", "--starts", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with students and with what is known."""
    folder = tmp_path_factory.mktemp("made")
    write_generator(folder / "student")
    write_generator(folder / "teacher", "teacher")
    write_generator(folder / "heat", equation="heat")
    np.save(folder / "coefficient.npy", np.full((POINTS, POINTS), 7.0))
    np.savez(folder / "two.npz", pressure=np.full((2, POINTS, POINTS), 0.005), equation="darcy")
    np.savez(folder / "heat.npz", temperature_00=np.ones((POINTS, POINTS)), diffusivity=0.002)
    (folder / "sensors.csv").write_text("channel,y,x,value\npressure,3,4,0.006\npermeability,8,8,12\n")
    (folder / "far.csv").write_text("channel,y,x,value\npressure,3,4,6.0\n")
    return folder


@pytest.fixture
def solve(made: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> tuple[str, str]:
        assert main(["solve", *(word.replace("MADE", str(made)) for word in words)]) == code
        said, errors = capsys.readouterr()
        assert all(line.startswith("error: ") for line in errors.splitlines()), errors
        return said, errors

    return run


def ask(task: str, given: str, *more: str, student: str = "student") -> list[str]:
    return [task, "--student", f"MADE/{student}", "--input", f"MADE/{given}", "--out", "answer.npz", *QUICK, *more]


def test_a_forward_answer_is_written_drawn_and_summarised(solve, tmp_path: Path) -> None:
    said, errors = solve(*ask("forward", "coefficient.npy", "--picture", "answer.png"))
    assert (
        not errors and "forward [" in said and "field 0: " in said and " sigma from what is known; residual l2 " in said
    )
    assert said.splitlines()[-2:] == ["answer: answer.npz", "picture: answer.png"]
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        assert file["permeability"].shape == file["pressure"].shape == (1, POINTS, POINTS)
        assert file["figures/calls"].tolist() == [3] and str(file["equation"]) == "darcy"
    with Image.open(tmp_path / "answer.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200


def test_a_forward_problem_is_solved_where_solver_steps_stand_behind_the_student(solve, tmp_path: Path) -> None:
    said, _ = solve(*ask("forward", "coefficient.npy", "--head", "4"))
    assert "solved by steps of the equation's own solver, without a network call" in said
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        assert str(file["figures/stage"]) == "solver" and file["residual/dual"] < 1e-4
    for more in (["--no-solver"], ["--sigma", "0.1"], ["--head", "0"], ["--posterior", "2"]):
        said, _ = solve(*ask("forward", "coefficient.npy", "--head", "4", *more))
        assert "solved by steps" not in said, more


def test_samples_of_what_sensors_leave_open(solve, tmp_path: Path) -> None:
    more = ["--posterior", "5", "--sigma", "pressure=0.001", "--sigma", "permeability=1", "--picture", "p.png"]
    said, _ = solve(*ask("reconstruct", "sensors.csv", *more))
    assert "warning" not in said
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        assert file["samples/pressure"].shape == (1, 5, POINTS, POINTS)
        samples = file["samples/pressure"]
        np.testing.assert_allclose(file["pressure"], samples.mean(axis=1), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(file["spread/pressure"], samples.std(axis=1, ddof=1), rtol=1e-3, atol=1e-7)
        assert (file["low/pressure"] <= file["high/pressure"]).all()


def test_sensors_at_coordinates_are_readings_between_grid_points(solve, made: Path, tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text(
        "channel,y_coord,x_coord,value\npressure,0.23,0.41,0.006\npermeability,0.5,0.9,12\n"
    )
    words = ["reconstruct", "--student", "MADE/student", "--input", "places.csv", "--out", "answer.npz", *QUICK]
    said, _ = solve(*words, "--sigma", "pressure=0.001", "--picture", "answer.png", "--field-steps", "60")
    assert "field 0: " in said and (tmp_path / "answer.png").exists()
    student = load_student(made / "student")
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        fields = student.join({name: file[name] for name in student.channels})
        assert file["figures/field_calls"][0] > 1 and file["first/figures/field_calls"].tolist() == [0]
        reading = points(student, "pressure", [[0.23, 0.41]], [0.006], 0.001)
        assert float(reading.misfit(fields, torch.zeros(1, dtype=torch.long))) < 1
    (tmp_path / "far.csv").write_text("channel,y_coord,x_coord,value\npressure,0.23,0.41,6.0\n")
    words[4] = "far.csv"
    assert "the farthest is 6" in solve(*words)[0]
    _, errors = solve("forward", *words[1:], code=2)
    assert "far.csv: sensors at coordinates, which only reconstruct takes" in errors
    _, errors = solve(*words, "--sigma", "permeability=1", code=2)
    assert "sigma['permeability']: this channel has no values" in errors


def test_an_inverse_answer_of_several_fields(solve, tmp_path: Path) -> None:
    said, _ = solve(*ask("inverse", "two.npz", "--equation", "darcy", "--sigma", "0.001", "--optimiser", "adam"))
    assert "field 1: " in said
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        assert file["permeability"].shape == (2, POINTS, POINTS)


def test_parameters_come_from_the_file_or_the_command_line(solve, tmp_path: Path) -> None:
    for more, wanted in (([], 0.002), (["--param", "diffusivity=0.004"], 0.004)):
        solve(*ask("forward", "heat.npz", *more, student="heat"))
        with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
            assert file["diffusivity"] == pytest.approx(wanted)


def test_what_training_never_saw_is_a_warning(solve) -> None:
    for more in ([], ["--field-steps", "0"]):  # with a second search the answer itself meets the value
        said, _ = solve(*ask("reconstruct", "far.csv"), *more)
        assert said.count("warning: ") == 2 and "the farthest is 6" in said
        assert "warning: 1 of 1 fields of the student lie more than 3 sigma from what is known" in said


def test_what_was_measured_is_never_written_over(solve, made: Path) -> None:
    before = (made / "two.npz").read_bytes()
    _, errors = solve(
        "inverse", "--student", "MADE/student", "--input", "MADE/two.npz", "--out", "MADE/two.npz", code=2
    )
    assert "two.npz: is --input too, and would be lost" in errors and (made / "two.npz").read_bytes() == before


def test_too_little_memory_is_one_line_with_a_remedy(solve, monkeypatch) -> None:
    monkeypatch.setattr("pidscale.app.solve.run", lambda *_: torch.empty(2**50))  # torch's own error, a RuntimeError
    _, errors = solve(*ask("forward", "coefficient.npy"), code=2)
    assert "out of memory" in errors and "--batch" in errors


def test_where_nothing_can_be_written_is_said_before_the_search(solve, tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    for place, part in (("folder.npz", "is a folder"), ("/proc/x.npz", "--out=/proc/x.npz: ")):
        said, errors = solve(*ask("forward", "coefficient.npy", "--out", place), code=2)
        assert part in errors and "forward [" not in said


def test_a_picture_that_cannot_be_drawn_is_said_before_the_search(made: Path, tmp_path: Path) -> None:
    words = [word.replace("MADE", str(made)) for word in ask("forward", "coefficient.npy", "--picture", "answer.png")]
    found = run_without(["matplotlib"], f"raise SystemExit(main({['solve', *words]!r}))", tmp_path)
    assert found.returncode == 2 and "forward [" not in found.stdout and not list(tmp_path.iterdir())
    assert found.stderr == "error: answer.png: pictures need matplotlib; pip install matplotlib, or omit --picture\n"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "required"),
        (["sideways"], "invalid choice: 'sideways'"),
        (ask("forward", "coefficient.npy", "--step", "3"), "unrecognized arguments: --step"),
        (ask("forward", "nowhere.npy"), "nowhere.npy: No such file"),
        (ask("forward", "coefficient.npy", student="nowhere"), "nowhere: no such folder"),
        (ask("forward", "coefficient.npy", student="teacher"), "teacher: a teacher cannot solve tasks"),
        (ask("inverse", "coefficient.npy", student="heat"), "coefficient.npy: shape [16, 16], expected [10, 16, 16]"),
        (ask("forward", "two.npz"), "forward finds this channel"),
        (ask("inverse", "two.npz", student="heat"), "of the equation darcy, the student is of heat"),
        (ask("inverse", "two.npz", "--equation", "heat"), "a generator of darcy, not of heat"),
        (ask("inverse", "two.npz", "--equation", "nosuch:Thing"), "pde.name='nosuch:Thing'"),
        (ask("forward", "coefficient.npy", "--sigma", "a"), "--sigma=a"),
        (ask("forward", "coefficient.npy", "--sigma", "0"), "sigma=0.0"),
        (ask("forward", "coefficient.npy", "--param", "k"), "--param=k: expected NAME=VALUE"),
        (ask("forward", "coefficient.npy", "--param", "k=1"), "params['k']"),
        (ask("forward", "coefficient.npy", "--sigma", "1", "--sigma", "2"), "--sigma=1: expected NAME=VALUE"),
        (
            ask("reconstruct", "sensors.csv", "--sigma", "pressure=1", "--sigma", "pressure=2"),
            "pressure is given twice",
        ),
        (ask("forward", "coefficient.npy", "--posterior", "1"), "--posterior=1"),
        (
            ask("forward", "coefficient.npy", "--posterior", "9" * 11),
            "--posterior=99999999999: expected a whole number from 2 to 1048576",
        ),
        (ask("forward", "coefficient.npy", "--starts", "0"), "--starts=0"),
        (ask("forward", "coefficient.npy", student="coefficient.npy"), "coefficient.npy: a file; expected the folder"),
        (ask("forward", "coefficient.npy", "--out", "x" * 246 + ".npz"), "a name of more than 200 bytes"),
        (ask("forward", "coefficient.npy", "--steps", "0"), "steps=0"),
        (ask("forward", "coefficient.npy", "--picture", "x.jpg"), "--picture=x.jpg: expected a name that ends in .png"),
        (ask("forward", "coefficient.npy", "--out", "none/x.npz"), "--out=none/x.npz: no folder none"),
        (ask("forward", "coefficient.npy", "--out", "x.npy"), "--out=x.npy: expected a name that ends in .npz"),
        (ask("forward", "coefficient.npy", "--device", "abacus"), "device='abacus'"),
    ],
)
def test_a_mistake_is_one_line(solve, tmp_path: Path, words: list[str], part: str) -> None:
    _, errors = solve(*words, code=2)
    assert errors.count("\n") == 1 and part in errors, errors
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_search_with_one_line(made: Path, tmp_path: Path) -> None:
    words = [word.replace("MADE", str(made)) for word in ask("forward", "coefficient.npy", "--steps", "10000000")]
    command = [sys.executable, str(ROOT / "launch" / "solve.py"), *words, "--optimiser", "adam"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    try:
        assert process.stdout is not None and process.stdout.read(1)  # it searches
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "interrupted; no answer was written\n")
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_task(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["solve", "--help"])
    said = capsys.readouterr().out
    assert not ended.value.code and all(word in said for word in ("forward", "inverse", "reconstruct", "--posterior"))
