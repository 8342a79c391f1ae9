"""The students that come along do what their page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pidscale
from pidscale.app.main import main
from pidscale.generator.student import Student
from tests.commands import ROOT, committed

NAMES = ("darcy", "poisson", "burgers", "navier_stokes")
SEEDED = [f"{name}-{seed}" for name in ("darcy", "poisson", "burgers") for seed in (1, 2)]
LARGEST = 2_000_000  # bytes


def worth(folder: Path) -> Student:
    """Open a student that comes along; its samples have the residual that its card says."""
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST
    student = pidscale.load_student(folder)
    report = student.card.metrics.report
    residual = student.residual(student.sample(64, seed=1))
    for norm in ("l2", "dual"):
        found = float(residual[norm].square().mean().sqrt())
        assert 0 < found < 1.3 * report[f"residual_{norm}"], norm
    return student


@pytest.mark.parametrize("name", NAMES)
def test_a_student_makes_fields_that_are_worth_what_its_card_says(name: str) -> None:
    student = worth(ROOT / "students" / name)
    report = student.card.metrics.report
    (row,) = (row for row in committed("students")["rows"] if row["pde"] == name)
    assert {key: report[key] for key in row if key in report} == {key: row[key] for key in row if key in report}
    assert row["head"] == student.head and row["channels"] == list(student.channels)


@pytest.mark.parametrize("name", SEEDED)
def test_students_of_other_seeds_differ_by_their_seed_alone(name: str) -> None:
    pde, seed = name.split("-")
    student = worth(ROOT / "benchmarks" / "students" / name)
    first = pidscale.load_student(ROOT / "students" / pde)
    assert student.card.provenance.seed == int(seed) and first.card.provenance.seed == 0
    for part in ("equation", "grid", "normaliser", "architecture", "noise", "head", "constraints"):
        assert getattr(student.card, part) == getattr(first.card, part), part
    assert student.card.weights_sha256 != first.card.weights_sha256


def test_the_first_command_of_the_readme_draws_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = (line for line in (ROOT / "README.md").read_text().splitlines() if "sample --student students/" in line)
    words = line.split("#")[0].split()[1:]
    assert (ROOT / words[words.index("--student") + 1]).is_dir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "students").symlink_to(ROOT / "students")
    assert main(words) == 0
    assert "4 samples of darcy" in capsys.readouterr().out
    assert Path(words[words.index("--picture") + 1]).read_bytes().startswith(b"\x89PNG")


def test_no_card_holds_a_path() -> None:
    folders = [*(ROOT / "students" / name for name in NAMES), *(ROOT / "benchmarks/students" / name for name in SEEDED)]
    for folder in folders:
        card = json.loads((folder / "card.json").read_text())
        assert "/" not in json.dumps(card), folder
