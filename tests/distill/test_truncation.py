"""What a solver leaves out: known for a Gaussian, and the same however ranks share the samples."""

from __future__ import annotations

from itertools import pairwise

import pytest
from torch import nn

from pidscale.diffusion.noise import EdmNoise
from pidscale.diffusion.normaliser import Normaliser
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.endpoints.truncation import Truncation, truncation, truncation_line
from pidscale.parallel.mesh import Mesh
from pidscale.pde import build_pde
from tests.ranks import spawn
from tests.small import bare_teacher

SPREAD = 0.5


class Gaussian(nn.Module):
    """The denoiser of fields whose values are independent with this spread: s^2 / (s^2 + sigma^2) x."""

    def forward(self, x, sigma, condition=None):
        return x * (SPREAD**2 / (SPREAD**2 + sigma**2)).reshape(-1, 1, 1, 1)


def rollout(steps, chunk=4):
    pde = build_pde("poisson")
    units = Normaliser((0.0, 0.0), (1.0, 1.0))
    teacher = bare_teacher(Gaussian(), pde, pde.grid(8), units, EdmNoise())
    return Rollout(teacher, "euler", steps, chunk, seed=3)


def gain(steps):
    """What Euler's steps make of noise of size 1, by hand."""
    x, levels = float(EdmNoise().sigma_max), EdmNoise().levels(steps).tolist()
    for here, ahead in pairwise(levels):
        slope = (x - SPREAD**2 / (SPREAD**2 + here**2) * x) / here
        x += (ahead - here) * slope
    return x


@pytest.mark.parametrize("steps", [6, 40])
def test_for_a_gaussian_it_is_what_the_solver_does_to_a_number(steps):
    found, ratio = truncation(rollout(steps), Mesh()), gain(steps) / gain(2 * steps)
    assert found.power == pytest.approx(ratio**2, rel=1e-4)
    assert found.distance == pytest.approx(abs(1 - ratio), rel=1e-3)


def test_more_steps_leave_out_less():
    distances = [truncation(rollout(steps), Mesh()).distance for steps in (6, 12, 24, 48)]
    assert all(fewer > 1.5 * more for fewer, more in pairwise(distances))


def _shared(rank, world):
    return truncation(rollout(6, chunk=2), Mesh(rank, world))


def test_ranks_learn_the_same():
    first, second = spawn(_shared, 2)
    assert first == second == pytest.approx(truncation(rollout(6, chunk=4), Mesh()), rel=1e-5)


def test_much_is_a_warning_with_a_remedy():
    assert truncation_line(Truncation(0.004, 1.01), 24) == (
        "endpoints of 24 solver steps lie 0.4% from those of 48, with 1.01 times their mean square"
    )
    assert not truncation_line(Truncation(0.05, 1.0), 24).startswith("warning")  # jumps that lie a little elsewhere
    for much in (Truncation(0.076, 1.15), Truncation(0.076, 0.9), Truncation(0.11, 1.0)):
        line = truncation_line(much, 12)
        assert line.startswith("warning: endpoints of 12 ") and "distill.solver_steps=24" in line and "\n" not in line
