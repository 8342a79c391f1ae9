"""DPS and DiffusionPDE: without a pull they are the teacher's sampler to the bit, and each pull is the one of its formula."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.solvers import SOLVERS
from pidscale.generator.tasks.observations import observe
from pidscale.methods.base import Question, ask
from pidscale.methods.diffusion_pde import DiffusionPde
from pidscale.methods.dps import Dps
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.pde.residuals import residual_squares
from tests.methods.gaussians import GRID, MEAN, PDE, SPREAD, UNITS, question, student, teacher


def in_double(n: int = 4, task: str = "reconstruct") -> Question:
    """Return a question in float64, in which every third point of both channels is known."""
    asked = question(n)
    asked = dataclasses.replace(asked, eps_NCYX=asked.eps_NCYX.double(), task=task)
    if task == "sample":
        return asked
    mask = torch.arange(64).reshape(8, 8) % 3 == 0
    return dataclasses.replace(asked, known=observe(student(), task, student().sample(n, seed=9), mask))


def answer(method: Any, asked: Question) -> Tensor:
    """Return the fields of an answer in units of the model."""
    return UNITS.encode(ask(method, teacher(EdmNoise()), asked, len(asked)).samples.fields)


def denoised(x: Tensor, level: float) -> Tensor:
    """The exact denoiser of the teacher's data."""
    return MEAN + SPREAD**2 / (SPREAD**2 + level**2) * (x - MEAN)


def misfit_slope(asked: Question, clean: Tensor) -> Tensor:
    """The gradient of |M (D - known)| over D, of each sample."""
    assert asked.known is not None
    away = torch.where(asked.known.known_NCYX, clean - UNITS.encode(asked.known.values_NCYX.double()), 0.0)
    return away / away.flatten(1).norm(dim=1)[:, None, None, None]


@pytest.mark.parametrize("noise", [None, EdmNoise()])
@pytest.mark.parametrize("task", ["sample", "reconstruct"])
def test_without_a_pull_it_is_the_sampler_of_the_teacher_to_the_bit(noise: Any, task: str) -> None:
    asked = dataclasses.replace(in_double(task=task), eps_NCYX=question(4).eps_NCYX)
    plain = dataclasses.replace(asked, task="sample")
    pairs = [(DiffusionPde(7, known=0, physics=0), "heun")]
    pairs += [(Dps(7, zeta=0), "euler")] if task == "reconstruct" else []
    for method, solver in pairs:
        found = ask(method, teacher(noise), asked, 4)
        wanted = ask(ProbabilityFlow(7, solver), teacher(noise), plain, 4)
        assert torch.equal(found.samples.fields, wanted.samples.fields)
        assert found.cost.calls == wanted.cost.calls and found.cost.gradients == found.cost.residuals == 0


def test_the_pull_of_dps_is_that_of_its_formula() -> None:
    """A step of length zeta / |y - A x0| along the gradient of the squared misfit, in variance-preserving units."""
    asked = in_double()
    level = EdmNoise().levels(1).tolist()[0]
    clean = denoised(asked.eps_NCYX * level, level)
    through = SPREAD**2 / (SPREAD**2 + level**2)  # dD / dx
    pull = 2 * 0.7 * (1 + level**2) * through * misfit_slope(asked, clean)
    torch.testing.assert_close(answer(Dps(1, zeta=0.7), asked), clean - pull, rtol=1e-6, atol=1e-7)


def test_the_pull_of_diffusion_pde_goes_through_both_halves_of_a_step() -> None:
    asked = in_double()
    first, second, _ = EdmNoise().levels(2).tolist()
    through = [SPREAD**2 / (SPREAD**2 + level**2) for level in (first, second)]
    x = asked.eps_NCYX * first
    slope = (x - denoised(x, first)) / first
    ahead = x + (second - first) * slope
    clean = denoised(ahead, second)
    after = x + (second - first) * 0.5 * (slope + (ahead - clean) / second)
    chain = through[1] * (1 + (second - first) / first * (1 - through[0]))  # dD(ahead) / dx
    x = after - 5.0 * chain * misfit_slope(asked, clean)
    last = denoised(x, second)  # the second of two steps is one of the last fifth
    wanted = last - 0.5 * through[1] * misfit_slope(asked, last)
    found = answer(DiffusionPde(2, known=5.0, physics=0), asked)
    assert 1 <= 0.8 * 2  # so that the second step still has the whole weight
    torch.testing.assert_close(found, last - 5.0 * through[1] * misfit_slope(asked, last), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, wanted)


def test_the_pull_towards_the_equation_is_the_gradient_of_its_residual() -> None:
    """Along a random direction, by differences; the pull comes in the last fifth of the steps alone."""
    asked = in_double(task="sample")
    steps, weight = 6, 1e-3
    levels = EdmNoise().levels(steps).tolist()
    x = asked.eps_NCYX * levels[0]
    for ends in list(pairwise(levels))[:-1]:
        x = next(SOLVERS["heun"].states(lambda x, level, *_: denoised(x, float(level[0])), x, ends))
    moved = (
        answer(DiffusionPde(steps, physics=0), asked) - answer(DiffusionPde(steps, physics=weight), asked)
    ) / weight

    def norm(x: Tensor) -> Tensor:
        return residual_squares(PDE, GRID, UNITS.decode(denoised(x, levels[-2])))["l2"].sqrt()

    along = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slope = (norm(x + 1e-6 * along) - norm(x - 1e-6 * along)) / 2e-6
    torch.testing.assert_close((moved * along).flatten(1).sum(dim=1), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [Dps(40, zeta=0.3), DiffusionPde(40, known=2.0)])
def test_a_pull_brings_samples_near_the_known_values(method: Any) -> None:
    asked = in_double(8)
    assert asked.known is not None
    plain = answer(ProbabilityFlow(40), dataclasses.replace(asked, task="sample"))
    known = asked.known
    wanted = UNITS.encode(known.values_NCYX)

    def away(x: Tensor) -> float:
        return float((x - wanted)[known.known_NCYX].square().mean().sqrt())

    assert away(answer(method, asked)) < 0.3 * away(plain)


def test_wrong_settings_and_unknown_parameters_are_one_line() -> None:
    unknown = dataclasses.replace(question(), params_NP=torch.full((5, 1), torch.nan))
    for make, words in (
        (lambda: Dps(steps=0), "method.steps=0: expected 1 or more"),
        (lambda: Dps(zeta=-1), "method.zeta=-1"),
        (lambda: DiffusionPde(known=float("nan")), "method.known=nan"),
        (lambda: DiffusionPde(physics=float("inf")), "method.physics=inf"),
        (lambda: ask(DiffusionPde(2), teacher(), unknown, 5), "needs every varying parameter"),
    ):
        with pytest.raises(UserError, match=words):
            make()
