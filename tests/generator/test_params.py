"""Generators of equations with varying parameters: these are drawn or given, and fields and residuals depend on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pidscale.config import UserError
from pidscale.generator import artifact
from pidscale.generator.load import load_student
from pidscale.generator.student import Student
from tests.generator.made import write_generator

NAMES = ["velocity_x", "velocity_y", "diffusivity"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_generator(tmp_path_factory.mktemp("made") / "student", equation="advection_diffusion")


@pytest.fixture(scope="module")
def student(folder: Path) -> Student:
    student = load_student(folder)
    with torch.no_grad():  # so that the output depends on the condition
        for name, parameter in student.denoiser.named_parameters():
            if "modulation" in name or "condition" in name or "conv2" in name:
                parameter.normal_(std=0.3)
    return student


def test_samples_come_with_the_parameters_they_are_conditioned_on(student: Student) -> None:
    fields = student.sample(6, seed=2)
    assert list(fields) == [*student.channels, *NAMES] and all(fields[name].shape == (6,) for name in NAMES)
    for name in NAMES:
        low, high = student.pde.varying[name]
        assert (low < fields[name]).all() and (fields[name] < high).all() and fields[name].unique().numel() == 6
    few = student.sample(4, seed=2, batch=1)
    assert all(torch.allclose(few[name], fields[name][:4], atol=1e-5) for name in fields)
    assert all(torch.isfinite(v).all() for v in student.residual(fields).values())


@pytest.mark.parametrize("name", NAMES)
def test_a_chosen_parameter_changes_the_fields_and_nothing_else_does(student: Student, name: str) -> None:
    drawn = student.sample(3, seed=2)
    value = student.pde.varying[name][1]
    chosen = student.sample(3, seed=2, params={name: value})
    assert torch.equal(chosen[name], torch.full((3,), value, dtype=torch.float64))
    assert all(torch.equal(chosen[other], drawn[other]) for other in NAMES if other != name)
    assert (chosen["concentration_10"] - drawn["concentration_10"]).abs().max() > 1e-4
    again = student.sample(3, seed=2, params={other: drawn[other] for other in NAMES})
    assert torch.equal(again["concentration_10"], drawn["concentration_10"])


def test_the_residual_uses_the_parameters_beside_the_fields(student: Student) -> None:
    grid = student.grid
    fields, params = student.pde.sample(0, 1, grid)
    truth = student.split(torch.from_numpy(fields)[None]) | {k: torch.tensor([v]) for k, v in params.items()}
    assert float(student.residual(truth)["l2"]) < 1e-6
    assert float(student.residual(truth | {"diffusivity": [1e-3]})["l2"]) > 0.01


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"viscosity": 1.0}, r"params\['viscosity'\].*velocity_x, velocity_y, diffusivity"),
        ({"diffusivity": 1.0}, r"params\['diffusivity'\]: 1; expected .* from 0\.0005 to 0\.005"),
        ({"diffusivity": [1e-3, 1e-3]}, r"params\['diffusivity'\]: shape \[2\].* 3 of them"),
        ({"diffusivity": [[1e-3]] * 3}, r"params\['diffusivity'\]: shape \[3, 1\]"),
        ({"diffusivity": float("nan")}, r"params\['diffusivity'\]: nan"),
        ([("diffusivity", 1e-3)], "params: a list, expected a dict"),
        ({"diffusivity": "much"}, r"params\['diffusivity'\].*real numbers"),
    ],
)
def test_wrong_parameters_are_one_line(student: Student, params: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        student.sample(3, params=params)
    assert "\n" not in str(raised.value)


def test_bounds_in_float32_and_tensors_with_gradients_are_accepted(student: Student) -> None:
    high = torch.tensor(0.005, dtype=torch.float32, requires_grad=True)
    fields = student.sample(2, params={"diffusivity": high})
    assert torch.allclose(fields["diffusivity"], torch.full((2,), 0.005, dtype=torch.float64))
    assert not fields["diffusivity"].requires_grad


def test_a_missing_parameter_is_named(student: Student) -> None:
    fields = student.sample(2)
    for name in NAMES:
        with pytest.raises(UserError, match=f"'{name}' is missing"):
            student.residual({k: v for k, v in fields.items() if k != name})
        low, high = student.pde.varying[name]
        for values, words in (
            ([low] * 3, r"shape \[3\]"),
            ([high, float("nan")], "nan;"),
            ([high + 1, low], "as in training"),
        ):
            with pytest.raises(UserError, match=rf"fields\['{name}'\]: .*{words}"):
                student.residual(fields | {name: values})
        assert student.residual(fields | {name: high})["l2"].shape == (2,)  # one number for all samples


def test_a_network_without_conditions_is_refused(folder: Path, tmp_path: Path) -> None:
    other = write_generator(tmp_path / "student", equation="wave")
    card = json.loads((folder / "card.json").read_text())
    read = artifact.read_plain(other)
    artifact.write_plain(other, read | {key: card[key] for key in ("equation", "normaliser", "channels")})
    with pytest.raises(UserError, match="not conditioned on the 3 varying parameters of advection_diffusion"):
        load_student(other)
