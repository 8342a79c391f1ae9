"""Students without loss on Gaussian data are the maps that they should be, to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pidscale.config import NOISES
from pidscale.diffusion.closed_form import GaussianModes
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.solvers import integrate
from tests.commands import measured


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured("proofs.closed_form", tmp_path_factory.mktemp("closed") / "closed_form.json", "--quick")


def test_linear_students_are_the_maps_of_their_solvers(result: dict[str, Any]) -> None:
    assert all(row["from_euler"] < 1e-10 for row in result["pid"])
    before, last = result["pid"][-2:]
    assert before["from_exact"] / last["from_exact"] == pytest.approx(2.0, rel=0.05)  # O(1 / N)
    assert all(row["from_map"] < 1e-10 for row in result["piddm"])


def test_another_number_of_steps_is_another_map() -> None:
    std = torch.tensor([0.05, 0.5, 2.0, 8.0], dtype=torch.float64).reshape(1, 1, 1, 4)
    maps = [
        integrate(GaussianModes(std).denoise, torch.ones_like(std), EdmNoise().levels(n), "euler") for n in (18, 19)
    ]
    assert float((maps[0] - maps[1]).abs().max()) > 1e-3


def test_all_kinds_of_noise_have_the_same_exact_map(result: dict[str, Any]) -> None:
    assert [row["kind"] for row in result["kinds"]] == list(NOISES)
    assert all(row["heun_800"] < 2e-3 and row["heun_50"] > 3 * row["heun_800"] for row in result["kinds"])
