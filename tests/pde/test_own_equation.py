"""A user's own equation, found by its path: the example of the documentation, and messages for a wrong path."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from pidscale.config import UserError
from pidscale.generator.load import load_student
from pidscale.pde import build_pde
from pidscale.pde.base import shuffled, solution_mask, truths
from pidscale.pde.head import correct
from pidscale.pde.residuals import residual_rms
from tests.scripts import ROOT, finish, start, tiny

TURNED = """
from fisher import Fisher

class Turned(Fisher):
    varying = {0}
"""
LEAST = """
from dataclasses import dataclass

import numpy as np

from pidscale.ops.grid import Grid
from pidscale.ops.spectral import dual_square_dirichlet, dual_square_of_one
from pidscale.ops.stencil import laplacian
from pidscale.pde.base import Channel, Equation
from pidscale.pde.parameters import read_params
from pidscale.pde.terms import Term


@dataclass(frozen=True)
class LeastParams:
    size: float = 2.0


@dataclass(frozen=True)
class Least(Equation):
    params: LeastParams = LeastParams()
    name: str = "mine:Least"
    channels: tuple = (Channel("load", "1", "input"), Channel("shape", "1", "solution"))

    @classmethod
    def from_params(cls, given):
        return cls(read_params("least", LeastParams, given, {"size": (0.1, 10.0)}))

    @property
    def residual_scale(self):
        return self.params.size

    def grid(self, points):
        return Grid((points, points))

    def sample(self, seed, counter, grid):
        return self.solve(np.full((1, *grid.shape), self.params.size), grid)[0], {}

    def solve(self, fields, grid, params=()):
        from pidscale.pde.solve.sine import solve_shifted_poisson

        return np.stack([fields[0], solve_shifted_poisson(fields[0], 0.0, grid.extent)]), 0

    def residual(self, window, fields, params=None):
        values = window.stencil(
            fields, 1, lambda f: laplacian(f[:, 1], window.grid.spacing) - f[:, 0, 1:-1, 1:-1]
        )
        return {"interior": Term(values, self.residual_scale)}

    def dual_square(self, term, window):
        return dual_square_dirichlet(term.values, window) / (dual_square_of_one(window.grid) * term.scale**2)
"""
EXAMPLE = ROOT / "docs" / "examples" / "fisher.py"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the example that Python imports from; the module is forgotten afterwards."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fisher", raising=False)
    return tmp_path


def test_truths_of_the_example_score_far_below_null_and_shuffled_solutions(here: Path) -> None:
    pde = build_pde("fisher:Fisher", {"frames": 8})
    grid = pde.grid(24)
    fields, params = truths(pde, 0, range(8), grid)
    truth, null, unrelated, others = (
        residual_rms(pde, grid, f, p)
        for f, p in (
            (fields.float(), params),
            (pde.trivial(fields), params),
            (shuffled(pde, grid, fields), params),
            (fields, 1.2 * params),
        )
    )
    for norm in ("l2", "dual"):
        assert truth[norm] < 0.01 * min(null[norm], unrelated[norm]) and others[norm] > 20 * truth[norm]
    assert build_pde(pde.name, pde.params_dict()) == pde


def test_the_example_has_a_head(here: Path) -> None:
    pde = build_pde("fisher:Fisher", {"frames": 8})
    grid = pde.grid(24)
    fields, params = truths(pde, 0, range(4), grid)
    near = torch.where(solution_mask(pde, grid), 0.8 * fields + 0.2 * fields.roll(1, dims=0), fields)
    before = (near - fields).flatten(1).norm(dim=1)
    for steps, least in ((1, 0.3), (2, 0.02)):
        found = correct(pde, grid, near, params, steps)
        assert ((found - fields).flatten(1).norm(dim=1) < least * before).all()
        assert torch.equal(found[:, 0], fields[:, 0])


def test_a_sample_that_steps_cannot_help_spoils_no_gradient_of_parameters(here: Path) -> None:
    pde = build_pde("fisher:Fisher", {"frames": 8})
    grid = pde.grid(12)
    fields, params = truths(pde, 0, range(3), grid)
    near = torch.where(solution_mask(pde, grid), 0.9 * fields, fields)
    wild = near.clone()
    wild[2] = 1e3 * wild[2] + 50
    found = []
    for given in (near, wild):
        own = params.clone().requires_grad_()
        correct(pde, grid, given, own, 2).square().sum().backward()
        found.append(own.grad)
    assert found[1].isfinite().all() and (found[1][2] == 0).all()
    torch.testing.assert_close(found[1][:2], found[0][:2], rtol=1e-10, atol=0)


def test_an_equation_needs_no_more_than_the_documentation_asks_for(here: Path) -> None:
    (here / "mine.py").write_text(LEAST)
    sys.modules.pop("mine", None)
    pde = build_pde("mine:Least", {"size": 3.0})
    sys.modules.pop("mine", None)
    grid = pde.grid(16)
    fields, params = truths(pde, 0, range(2), grid)
    null = pde.trivial(fields)
    assert torch.equal(null[:, 0], fields[:, 0]) and null[:, 1].abs().max() == 0
    assert residual_rms(pde, grid, fields, params)["l2"] < 1e-12
    assert residual_rms(pde, grid, null, params) == pytest.approx({"l2": 1.0, "dual": 1.0, "boundary": 0.0})
    assert torch.equal(pde.smooth(null, 3, grid), null) and pde.phase_error(null) is None
    assert pde.constraints == () and pde.params_dict() == {"size": 3.0}
    with pytest.raises(UserError, match=r"head=1: mine:Least has no solver steps of its own \(a method `correct`\)"):
        correct(pde, grid, null, params, 1)


NONLINEAR = (
    LEAST.replace("mine:Least", "mine:Cubic")
    .replace("class Least(Eq", "class Cubic(Eq")
    .replace(
        "laplacian(f[:, 1], window.grid.spacing)", "laplacian(f[:, 1], window.grid.spacing) - f[:, 1, 1:-1, 1:-1] ** 3"
    )
)
HEAD = """
    def correct(self, window, fields_BCYX, params_BP, steps):
        from pidscale.pde.newton import gauss_newton

        return gauss_newton(self, window, fields_BCYX, params_BP, steps)
"""


def test_three_lines_give_an_equation_a_head(here: Path) -> None:
    """lap u - u^3 = f, without the data of a solver: what Newton's method leaves falls quadratically."""
    (here / "mine.py").write_text(NONLINEAR + HEAD)
    sys.modules.pop("mine", None)
    pde = build_pde("mine:Cubic", {"size": 10.0})
    sys.modules.pop("mine", None)
    grid = pde.grid(16)
    fields = torch.zeros(3, 2, 16, 16, dtype=torch.float64)
    fields[:, 0] = torch.tensor([1.0, 4.0, -8.0], dtype=torch.float64)[:, None, None]
    params = fields.new_zeros(3, 0)
    left = [residual_rms(pde, grid, correct(pde, grid, fields, params, steps), params)["dual"] for steps in range(4)]
    assert left[1] < 0.1 * left[0] and left[2] < 1e-3 * left[1] and left[3] < 1e-7 * left[0], left
    near = fields + 0.1 * torch.randn(fields.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: correct(pde, grid, x, params, 1), (near,), fast_mode=True)


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
def test_a_wrong_path_is_refused_in_one_line(here: Path, name: str, text: str, words: str) -> None:
    (here / "mine.py").write_text(text)
    sys.modules.pop("mine", None)
    with pytest.raises(UserError) as raised:
        build_pde(name)
    sys.modules.pop("mine", None)
    assert words in str(raised.value) and name in str(raised.value) and "\n" not in str(raised.value)


def test_its_parameters_are_checked(here: Path) -> None:
    with pytest.raises(UserError, match=r"pde\.params\.diffusion=-1\.0: expected 1e-05 to 0.1"):
        build_pde("fisher:Fisher", {"diffusion": -1.0})
    with pytest.raises(UserError, match=r"growth_low=4, growth_high=2: expected low <= high"):
        build_pde("fisher:Fisher", {"growth_low": 4.0, "growth_high": 2.0})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_runs_from_shards_to_student_without_a_change_to_the_package(here: Path) -> None:
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
