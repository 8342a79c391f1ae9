"""Sampling of a teacher that is pulled towards known values and the equation at every step.

A step of the teacher's solver leads from x to x'. With D the last field that the network returned in this step, which depends
on x, the pull is

    x' <- x' - grad_x [ w_known |M (D - known)| + w_physics R(D) ]

in units of the model; M selects the known values, and R is the relative l2 residual. Both are norms, not their squares.
Knows no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.solvers import SOLVERS
from pidscale.generator.generator import Generator
from pidscale.methods.base import Question
from pidscale.pde.base import Samples
from pidscale.pde.residuals import residual_squares
from pidscale.precision import float32_or_better

Weights = Callable[[int, float], tuple[float, float]]


class _Remembering:
    """A denoiser that keeps the last field that it returned."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self.last: Tensor

    def __call__(self, x_BCYX: Tensor, sigma_B: Tensor, level_B: Tensor | None = None, /) -> Tensor:
        self.last = self._denoiser(x_BCYX, sigma_B)
        return self.last


@sheltered
def guided(generator: Generator, question: Question, steps: int, solver: str, weights: Weights) -> Samples:
    """Sample a teacher with a pull at every step. Where both weights are 0, no gradient is taken.

    Args:
        generator: A teacher.
        question: Noise, parameters and, if there are, known values.
        steps: Number of solver steps.
        solver: `euler` or `heun`, whose steps do not depend on those before.
        weights: Function of the number of a step, from 0, and of its noise level; returns w_known and w_physics.

    Returns:
        Physical fields and their parameters.
    """
    network = _Remembering(generator.conditioned_on(question.params_NP))
    levels = generator.noise.levels(steps).tolist()
    x = float32_or_better(question.eps_NCYX.to(generator.device)) * levels[0]
    for step, ends in enumerate(pairwise(levels)):
        known, physics = weights(step, ends[0])
        pulls = known > 0 or physics > 0
        with torch.set_grad_enabled(pulls):
            x = x.detach().requires_grad_(pulls)
            ahead = next(SOLVERS[solver].states(network, x, ends))
            if pulls:
                energy = _energy(generator, question, network.last, known, physics)
                ahead = ahead - torch.autograd.grad(energy, x)[0]
        x = ahead.detach()
    return Samples(generator.to_physical(x, question.params_NP), question.params_NP)


def _energy(generator: Generator, question: Question, clean_NCYX: Tensor, known: float, physics: float) -> Tensor:
    """Return the sum of the weighted norms over all samples."""
    total = clean_NCYX.new_zeros(())
    if known > 0 and question.known is not None:
        seen = question.known.on(generator.device)
        away = torch.where(seen.known_NCYX, clean_NCYX - generator.normaliser.encode(seen.values_NCYX), 0.0)
        total = total + known * torch.linalg.vector_norm(away.flatten(1), dim=1).sum()
    if physics > 0:
        fields = generator.normaliser.decode(clean_NCYX)
        squares = residual_squares(generator.pde, generator.grid, fields, question.params_NP)["l2"]
        total = total + physics * squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt().sum()
    return total
