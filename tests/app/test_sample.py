"""`pidscale sample` and `pidscale show`: what they print and write, with the base installation alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pidscale.app.main import main
from pidscale.diffusion.normaliser import Normaliser
from pidscale.generator import artifact
from pidscale.generator.load import load_student, load_teacher
from tests.app.conftest import Run
from tests.generator.made import POINTS, write_generator


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, its student, and a student of the heat equation."""
    folder = tmp_path_factory.mktemp("made")
    write_generator(folder / "teacher", "teacher")
    write_generator(folder / "student", seed=1, teacher=folder / "teacher")
    write_generator(folder / "heat", equation="heat")
    return folder


@pytest.fixture
def ask(made: Path, tmp_path: Path, monkeypatch, capsys):
    """Run a command line here; what it prints on both streams."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        assert main([str(word).replace("MADE", str(made)) for word in words]) == code
        said, errors = capsys.readouterr()
        assert all(line.startswith("error: ") for line in errors.splitlines()), errors
        return said, errors

    return run


def written(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


# ---- sample


def test_samples_are_those_of_the_library(ask, made: Path, tmp_path: Path) -> None:
    said, errors = ask("sample", "--student", "MADE/student", "-n", 5, "--seed", 3, "--batch", 2, "--out", "s.npz")
    student = load_student(made / "student")
    fields = student.sample(5, seed=3, batch=2)
    found = written(tmp_path / "s.npz")
    assert found.keys() == {"equation", "permeability", "pressure"} and str(found["equation"]) == "darcy"
    for name in student.channels:
        assert found[name].dtype == np.float32 and found[name].shape == (5, POINTS, POINTS)
        np.testing.assert_array_equal(found[name], fields[name].numpy())
    mean = {norm: float(values.double().square().mean().sqrt()) for norm, values in student.residual(fields).items()}
    assert not errors and said == (
        f"s.npz: 5 samples of darcy; root mean square residual: l2 {mean['l2']:.3g}, "
        f"dual {mean['dual']:.3g}, boundary {mean['boundary']:.3g}\n"
    )


def test_a_picture_is_drawn_with_or_without_a_file(ask, tmp_path: Path) -> None:
    said, _ = ask("sample", "--student", "MADE/heat", "-n", 2, "--picture", "two.png")
    assert said.splitlines()[-1] == "picture: two.png" and "2 samples of heat" in said
    ask("sample", "--student", "MADE/teacher", "-n", 6, "--out", "s.npz", "--picture", "four.png")
    two, four = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("two", "four"))
    assert four.shape[1] > two.shape[1] and min(four.std(), two.std()) > 20  # fields, and not blank axes
    assert written(tmp_path / "s.npz")["pressure"].shape[0] == 6
    for words, part in (
        ([], "--out, --picture: neither is given"),
        (["--picture", "two.jpg"], "--picture=two.jpg: expected a name that ends in .png"),
        (["--picture", "nowhere/two.png"], "--picture=nowhere/two.png: no folder nowhere"),
    ):
        _, errors = ask("sample", "--student", "MADE/heat", "-n", 2, *words, code=2)
        assert errors.count("\n") == 1 and part in errors, errors


def test_inputs_that_solver_steps_cannot_take_are_reported_in_one_line(ask, made: Path, tmp_path: Path) -> None:
    units = Normaliser((1.0, 0.005), (2.0, 0.004))  # a permeability that is often below 0
    low = write_generator(tmp_path / "low", normaliser=units)
    said, _ = ask("sample", "--student", low, "-n", 2, "--out", "s.npz", "--head", 2)
    first, last = said.splitlines()
    assert first.startswith("warning: permeability: ") and "in 2 of 2 samples lie outside" in first
    assert last.startswith("s.npz: 2 samples")
    np.savez(tmp_path / "known.npz", pressure=written(tmp_path / "s.npz")["pressure"][:1])
    quick = ["--steps", 2, "--starts", 1, "--head", 2]
    said, _ = ask("solve", "inverse", "--student", low, "--input", "known.npz", "--out", "a.npz", *quick)
    assert said.splitlines()[-2].startswith("warning: permeability: ")


def test_parameters_are_chosen_and_written(ask, tmp_path: Path) -> None:
    ask("sample", "--student", "MADE/heat", "-n", 3, "--out", "drawn.npz")
    ask("sample", "--student", "MADE/heat", "-n", 3, "--out", "chosen.npz", "--param", "diffusivity=0.002")
    drawn, chosen = (written(tmp_path / f"{name}.npz")["diffusivity"] for name in ("drawn", "chosen"))
    assert len(set(drawn)) == 3 and chosen == pytest.approx([0.002] * 3)


def test_a_teacher_takes_steps_and_adds_calls_to_its_student(ask, made: Path, tmp_path: Path) -> None:
    ask("sample", "--student", "MADE/teacher", "-n", 2, "--steps", 3, "--out", "teacher.npz")
    ask("sample", "--student", "MADE/student", "-n", 2, "--nfe", 4, "--teacher", "MADE/teacher", "--out", "more.npz")
    teacher = load_teacher(made / "teacher").sample(2, steps=3)
    more = load_student(made / "student", teacher=made / "teacher").sample(2, nfe=4)
    np.testing.assert_array_equal(written(tmp_path / "teacher.npz")["pressure"], teacher["pressure"].numpy())
    np.testing.assert_array_equal(written(tmp_path / "more.npz")["pressure"], more["pressure"].numpy())


def test_samples_can_be_what_a_task_is_asked(ask, tmp_path: Path) -> None:
    ask("sample", "--student", "MADE/student", "-n", 1, "--out", "s.npz")
    known = written(tmp_path / "s.npz")
    np.savez(tmp_path / "known.npz", pressure=known["pressure"], equation=known["equation"])
    quick = ["--steps", 2, "--starts", 1]
    said, _ = ask("solve", "inverse", "--student", "MADE/student", "--input", "known.npz", "--out", "a.npz", *quick)
    assert said.splitlines()[-1] == "answer: a.npz"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-n", "0"], "n=0: expected a whole number from 1 to"),
        (["-n", "1" + "0" * 20], "expected a whole number from 1 to"),
        (["-n", "1" + "0" * 12], "out of memory"),
        (["-n", "2", "--seed", "-1"], "seed=-1"),
        (["-n", "2", "--batch", "0"], "batch=0"),
        (["-n", "2", "--steps", "4"], "--steps=4: solver steps of a teacher; a student takes --nfe"),
        (["-n", "2", "--nfe", "0"], "nfe=0"),
        (["-n", "2", "--nfe", "3"], "--nfe=3: needs the student's teacher; name its folder with --teacher"),
        (["-n", "2", "--teacher", "MADE/teacher"], "only --nfe above 1 calls the teacher"),
        (["-n", "2", "--nfe", "3", "--teacher", "MADE/heat"], "holds a student, expected a teacher"),
        (["-n", "2", "--param", "k"], "--param=k: expected NAME=VALUE"),
        (["-n", "2", "--param", "k=1"], "params['k']: darcy has no such varying parameter"),
        (["-n", "2", "--equation", "heat"], "a generator of darcy, not of heat"),
        (["-n", "2", "--device", "abacus"], "device='abacus'"),
        (["-n", "2", "--out", "s.npy"], "--out=s.npy: expected a name that ends in .npz"),
        (["-n", "2", "--out", "none/s.npz"], "--out=none/s.npz: no folder none"),
        (["-n", "2", "--student", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(ask, tmp_path: Path, words: list[str], part: str) -> None:
    _, errors = ask("sample", "--student", "MADE/student", "--out", "s.npz", *words, code=2)
    assert errors.count("\n") == 1 and part in errors, errors
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_one_line_with_a_remedy(ask, monkeypatch) -> None:
    monkeypatch.setattr("pidscale.app.sample.open_generator", lambda *_: torch.empty(2**50))
    _, errors = ask("sample", "--student", "MADE/student", "-n", 2, "--out", "s.npz", code=2)
    assert "out of memory" in errors and "--batch" in errors


# ---- show


def test_a_student_is_described(ask, made: Path, tmp_path: Path) -> None:
    said, errors = ask("show", "MADE/student")
    lines = said.splitlines()
    assert lines[0] == f"{made}/student: student" and not errors and len(lines) <= 14
    for line in (
        "  grid        node, 16 x 16 points, extent 1 x 1, dirichlet",
        "  channel     permeability [1], input",
        "  channel     pressure [1], solution",
        "  training    2 s, run=made",
    ):
        assert line in lines
    assert lines[1].startswith("  equation    darcy, alpha=2, high=12") and "unet" in said and "sigma_max=80" in said
    assert list(tmp_path.iterdir()) == []


def test_figures_and_objective_are_shown_where_a_card_has_them(ask, tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "own", equation="heat")
    card = artifact.read_plain(folder)
    card["provenance"] = {
        "objective": "piddm",
        "steps": 1500,
        "seed": 0,
        "endpoints": {"solver": "heun", "steps": 18, "reuse": 24},
        "weights": {"l2": 0.002, "dual": 0.02},
        "huber": 0.1,
    }
    report = {"residual_l2": 0.6494, "residual_dual": 0.0945, "boundary_rms": None, "solution_error": 0.045}
    report |= {"swd_excess": 0.029, "nfe": 1, "ms_per_sample": 0.878, "n_samples": 1536}
    card["metrics"] = {"train_seconds": 297.4, "report": report}
    artifact.write_plain(folder, card)
    lines = ask("show", folder)[0].splitlines()
    for line in (
        "  channel     temperature_00 [1], input",
        "  channel     temperature_01 to temperature_10 (10) [1], solution",
        "  objective   piddm, huber=0.1",
        "  endpoints   reuse=24, solver=heun, steps=18",
        "  residual    weights dual=0.02, l2=0.002",
        "  training    1500 steps, 297 s, seed=0",
        "  measured    residual l2 0.649, dual 0.0945, solution error 0.045, SWD excess 0.029",
        "  measured    calls 1, 0.878 ms a sample, 1536 samples",
    ):
        assert line in lines, line


def test_a_shard_set_is_described_and_drawn_on_request(ask, small_shards: Path, tmp_path: Path) -> None:
    said, _ = ask("show", small_shards)
    assert said.startswith(f"{small_shards}: shard set") and "picture" not in said and list(tmp_path.iterdir()) == []
    said, _ = ask("show", small_shards, "--out", "set.png")
    assert said.splitlines()[-1].split() == ["picture", "set.png"]
    with Image.open(tmp_path / "set.png") as picture:
        assert picture.format == "PNG"
    assert ask("shards", "show", small_shards, "--out", "other.png")[0].replace("other", "set") == said


def test_what_cannot_be_shown_is_one_line(ask, made: Path, small_shards: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(made / "student", tmp_path / "damaged")
    card = json.loads((damaged / "card.json").read_text())
    (damaged / "card.json").write_text(json.dumps(card | {"kind": "teacher"}))
    for words, part in (
        (["nowhere"], "nowhere: no such folder"),
        (["MADE"], "holds neither card.json, as a generator does, nor manifest.json"),
        (["MADE/student/card.json"], "card.json: a file; expected the folder"),
        (["damaged"], "its checksum does not match its contents"),
        (["MADE/student", "--out", "x.png"], "--out=x.png: only a shard set is drawn"),
        ([small_shards, "--out", "x.jpg"], "--out=x.jpg: expected a name that ends in .png"),
        ([small_shards, "--equation", "heat"], "a set of darcy, not of heat"),
        ([small_shards, "--equation", "euler"], "'euler'"),
    ):
        _, errors = ask("show", *words, code=2)
        assert errors.count("\n") == 1 and part in errors, errors


# ---- the base installation is enough


def test_they_need_torch_numpy_and_safetensors_only(
    base_only: Run, made: Path, small_shards: Path, tmp_path: Path
) -> None:
    found = base_only("sample", "--student", made / "student", "-n", 2, "--out", "s.npz")
    assert found.returncode == 0 and not found.stderr, found.stderr
    assert written(tmp_path / "s.npz")["pressure"].shape == (2, POINTS, POINTS)
    headed = write_generator(tmp_path / "headed", seed=1, head=2)
    found = base_only("sample", "--student", headed, "-n", 2, "--out", "headed.npz")
    assert found.returncode == 0 and not found.stderr, found.stderr
    assert not np.array_equal(written(tmp_path / "headed.npz")["pressure"], written(tmp_path / "s.npz")["pressure"])
    assert "head        2 solver steps behind every field" in base_only("show", headed).stdout
    for folder in (made / "student", made / "teacher", small_shards):
        found = base_only("show", folder)
        assert found.returncode == 0 and "equation" in found.stdout and not found.stderr, found.stderr
    np.save(tmp_path / "coefficient.npy", np.full((POINTS, POINTS), 7.0))
    words = ["--student", made / "student", "--input", "coefficient.npy", "--steps", 3, "--starts", 1]
    found = base_only("solve", "forward", *words, "--out", "answer.npz")
    assert found.returncode == 0 and not found.stderr and (tmp_path / "answer.npz").is_file(), found.stderr
    found = base_only("sample", "--student", headed, "-n", 2, "--picture", "s.png")
    assert found.returncode == 2 and "s.png: pictures need matplotlib; pip install matplotlib" in found.stderr
    found = base_only("show", small_shards, "--out", "set.png")
    assert found.returncode == 2 and "run `pip install 'pidscale[train]'`" in found.stderr
    assert found.stderr.count("\n") == 1
