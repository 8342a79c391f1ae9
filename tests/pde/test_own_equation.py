"""A user's own equation, found by its path: the example of the documentation, and what a wrong path says."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pidscale.config import UserError
from pidscale.generator.load import load_student
from pidscale.pde import build_pde
from pidscale.pde.base import shuffled, truths
from pidscale.pde.residuals import residual_rms
from tests.scripts import ROOT, finish, start, tiny

TURNED = """
from fisher import Fisher

class Turned(Fisher):
    varying = {0}
"""
EXAMPLE = ROOT / "docs" / "examples" / "fisher.py"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python finds modules in, with the example; modules are forgotten afterwards."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fisher", raising=False)
    return tmp_path


def test_the_example_tells_truth_from_nothing(here: Path) -> None:
    pde = build_pde("fisher:Fisher", {"frames": 8})
    grid = pde.grid(24)
    fields, params = truths(pde, 0, range(8), grid)
    truth, nothing, strangers, others = (
        residual_rms(pde, grid, f, p)
        for f, p in (
            (fields.float(), params),
            (pde.trivial(fields), params),
            (shuffled(pde, grid, fields), params),
            (fields, 1.2 * params),
        )
    )
    for norm in ("l2", "dual"):
        assert truth[norm] < 0.01 * min(nothing[norm], strangers[norm]) and others[norm] > 20 * truth[norm]
    assert build_pde(pde.name, pde.params_dict()) == pde


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("nowhere:Thing", "", "No module named 'nowhere'"),
        ("mine:Thing", "", "no attribute 'Thing'"),
        ("mine:Thing", "Thing = 3", "'int' object has no attribute 'from_params'"),
        ("mine:Thing", "def (", "invalid syntax"),
        ("mine:Thing", "raise RuntimeError('not today')", "not today"),
        ("mine:Fisher", "from fisher import Fisher", "'fisher:Fisher'; make them equal"),
        ("mine:Thing", "raise SystemExit(7)", "SystemExit: 7"),
        ("mine:Thing", "class Thing:\n    from_params = staticmethod(lambda p: None)", "has no name, channels"),
        ("mine:Thing", "class Thing:\n    from_params = staticmethod(lambda p: 1 / 0)", "ZeroDivisionError"),
        ("mine:Turned", TURNED.replace("{0}", "{'growth': (4.0, 1.0)}"), "varying 'growth': 4.0 to 1.0"),
        ("mine:Turned", TURNED.replace("{0}", "{'population_00': (1.0, 2.0)}"), "no channel's name"),
        (":", "", "pde.name=':'"),
    ],
)
def test_a_wrong_path_is_one_line(here: Path, name: str, text: str, words: str) -> None:
    (here / "mine.py").write_text(text)
    sys.modules.pop("mine", None)
    with pytest.raises(UserError) as raised:
        build_pde(name)
    sys.modules.pop("mine", None)
    assert words in str(raised.value) and name in str(raised.value) and "\n" not in str(raised.value)


def test_its_parameters_are_checked_like_ours(here: Path) -> None:
    with pytest.raises(UserError, match=r"pde\.params\.diffusion=-1\.0: expected 1e-05 to 0.1"):
        build_pde("fisher:Fisher", {"diffusion": -1.0})
    with pytest.raises(UserError, match=r"growth_low=4, growth_high=2: expected low <= high"):
        build_pde("fisher:Fisher", {"growth_low": 4.0, "growth_high": 2.0})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_goes_the_whole_way_without_a_line_in_the_package(here: Path) -> None:
    own = ["pde=own", "pde.name=fisher:Fisher", "pde.params.frames=4"]
    said, _ = finish(start("demo", tiny(here, "own", *own), here / "demo.log"), here / "demo.log")
    assert "student-lambda0" in said
    folder = here / "runs" / "own" / "student"
    with pytest.raises(UserError, match="`import fisher` first"):
        load_student(folder)
    __import__("fisher")
    student = load_student(folder)
    fields = student.sample(3, params={"growth": 2.0})
    assert fields["growth"].tolist() == [2.0] * 3 and student.residual(fields)["l2"].shape == (3,)
