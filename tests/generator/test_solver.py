"""Forward problems with known inputs are solved by the equation's solver steps, without a network, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pidscale.app.files import write_answer
from pidscale.config import UserError
from pidscale.generator.load import load_student
from pidscale.generator.student import Student
from pidscale.generator.tasks.likeliest import Answer, Stage
from pidscale.pde import PDES
from pidscale.pde.base import Samples, solution_mask, truths
from tests.generator.known import refused
from tests.generator.made import POINTS, write_generator

QUICK = {"steps": 2, "starts": 1, "field_steps": 0}


class Silent(nn.Module):
    """A network that must not be called."""

    def forward(self, *_: object) -> Tensor:
        raise AssertionError("the network was called")


def opened(folder: Path, equation: str, head: int = 4) -> tuple[Student, Samples]:
    student = load_student(write_generator(folder / equation, equation=equation, head=head))
    made = truths(student.pde, 3, range(2), student.grid)
    return student, Samples(made.fields.float(), made.params)


def given(student: Student, truth: Samples) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inputs of truths and their parameters, by name."""
    inputs = ~solution_mask(student.pde, student.grid)
    known = {
        name: torch.where(inputs[c], truth.fields[:, c], torch.nan)
        for c, name in enumerate(student.channels)
        if inputs[c].any()
    }
    return known, dict(zip(student.pde.varying, truth.params.T, strict=True))


def off(student: Student, answer: Answer, truth: Samples) -> float:
    mask = solution_mask(student.pde, student.grid)
    away = (student.join(answer.fields) - truth.fields) * mask
    return float((away.flatten(1).norm(dim=1) / (truth.fields * mask).flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("equation", sorted(PDES))
def test_every_equation_is_solved_without_a_call(tmp_path: Path, equation: str) -> None:
    student, truth = opened(tmp_path, equation)
    known, params = given(student, truth)
    answer = replace(student, denoiser=Silent()).forward(known, params=params, solver=True)
    assert answer.stage is Stage.SOLVER and answer.calls.tolist() == [0, 0] and answer.eps.isnan().all()
    assert (answer.residual["dual"] < 1e-4).all() and (answer.mismatch == 0).all()
    # the two numerical solutions differ by what their schemes leave out
    assert off(student, answer, truth) < 0.05
    inputs = ~solution_mask(student.pde, student.grid)
    assert torch.equal(student.join(answer.fields) * inputs, truth.fields * inputs)
    torch.testing.assert_close(student.residual(answer.fields)["l2"], answer.residual["l2"], rtol=1e-3, atol=1e-5)


def test_what_a_solver_cannot_answer_is_searched_for(tmp_path: Path) -> None:
    darcy, truth = opened(tmp_path, "darcy")
    permeability = truth.fields[:, 0]
    heat, warm = opened(tmp_path, "heat")
    known, params = given(heat, warm)
    searches = {
        "noise": lambda solver: darcy.forward(permeability, sigma=0.1, solver=solver, **QUICK),
        "no head": lambda solver: darcy.with_head(0).forward(permeability, solver=solver, **QUICK),
        "a parameter that is not known": lambda solver: heat.forward(known, solver=solver, **QUICK),
    }
    for name, search in searches.items():
        assert search(None).stage is Stage.NOISE and (search(None).calls == 2).all(), name
        with pytest.raises(UserError, match=r"solver=True: needs a head, all inputs without noise and all parameters"):
            search(True)
    assert heat.forward(known, params=params).stage is Stage.SOLVER
    assert darcy.forward(permeability, solver=False, **QUICK).stage is Stage.NOISE
    assert darcy.forward(permeability, solver=False, **(QUICK | {"field_steps": 2})).stage is Stage.FIELD


def test_a_solver_that_is_neither_yes_nor_no_is_refused(tmp_path: Path) -> None:
    darcy = load_student(write_generator(tmp_path / "darcy", head=2))
    permeability = darcy.sample(1)["permeability"]
    assert "solver='x': expected True, False, or None" in refused(lambda: darcy.forward(permeability, solver="x"))
    assert "student.with_head(k)" in refused(lambda: darcy.forward(permeability, solver=False, head=8))


def test_an_input_that_has_no_solution_is_a_warning_and_a_search(tmp_path: Path) -> None:
    darcy, truth = opened(tmp_path, "darcy")
    permeability = truth.fields[:1, 0].clone()
    permeability[0, 3, 3] = 0.0
    with pytest.warns(UserWarning, match="1 of 256 known values are not above 0"):
        assert darcy.forward(permeability, **QUICK).stage is Stage.NOISE


def test_the_file_of_an_answer_names_its_stage(tmp_path: Path) -> None:
    darcy, truth = opened(tmp_path, "darcy")
    write_answer(tmp_path / "answer.npz", "darcy", darcy.forward(truth.fields[:, 0]))
    with np.load(tmp_path / "answer.npz", allow_pickle=False) as file:
        assert str(file["figures/stage"]) == "solver" and file["pressure"].shape == (2, POINTS, POINTS)
