"""CoCoGen: a teacher's sampler with descent of the residual in its last steps and after them (Jacobsen et al., 2024).

A correction is one step of gradient descent on R^2, the squared l2 residual plus the squared boundary term, over the whole
field in units of the model. The paper's step length is 2e-4 over the largest entry of the residual's Jacobian, which costs
a dense Jacobian. Here it is found by trial for each sample: first the length that would end at R = 0 if R^2 were linear
along the gradient, then half of it again and again until R^2 falls; a correction that does not lower it is not made.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.diffusion.solvers import SOLVERS
from pidscale.generator.generator import TEACHER_STEPS, Generator
from pidscale.methods.base import SAMPLE, TEACHER, Question, check_given, check_settings
from pidscale.pde.base import Samples
from pidscale.pde.residuals import residual_squares
from pidscale.precision import float32_or_better

FIRST = 0.8  # share of the steps without a correction
TRIALS = 10  # step lengths that a correction tries


@dataclass(frozen=True)
class CoCoGen:
    """Sample a teacher and lower the residual of its states. A setting out of range raises a UserError.

    Attributes:
        steps: Number of Heun steps.
        during: Number of corrections after each of the last fifth of the steps.
        after: Number of corrections after the last step.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = TEACHER_STEPS
    during: int = 1
    after: int = 20
    source: ClassVar[str] = (
        "Jacobsen et al., CoCoGen: physically consistent and conditioned score-based generation, 2024"
    )
    takes: ClassVar[frozenset[str]] = frozenset({TEACHER})
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def __post_init__(self) -> None:
        check_settings(self, steps=1, during=0, after=0)

    @sheltered
    def run(self, generator: Generator, question: Question) -> Samples:
        """Sample each field. A varying parameter that is not given raises a UserError."""
        check_given(self, question)
        params = question.params_NP
        network = generator.conditioned_on(params)
        levels = generator.noise.levels(self.steps).tolist()
        x = float32_or_better(question.eps_NCYX.to(generator.device)) * levels[0]
        for step, ends in enumerate(pairwise(levels)):
            with torch.no_grad():
                x = next(SOLVERS["heun"].states(network, x, ends))
            for _ in range(self.during if step >= FIRST * self.steps else 0):
                x = corrected(generator, x, params)
        for _ in range(self.after):
            x = corrected(generator, x, params)
        return Samples(generator.to_physical(x, params), params)


def corrected(generator: Generator, x_NCYX: Tensor, params_NP: Tensor) -> Tensor:
    """Return fields after one step of descent on R^2; a field whose R^2 no tried length lowers stays as it is.

    Args:
        generator: The generator whose equation and units are taken.
        x_NCYX: Fields in units of the model.
        params_NP: Varying parameters of each sample.

    Returns:
        Fields in units of the model.
    """

    def size(x: Tensor) -> Tensor:
        squares = residual_squares(generator.pde, generator.grid, generator.normaliser.decode(x), params_NP)
        return squares["l2"] + squares["boundary"]

    with torch.enable_grad():
        x = x_NCYX.detach().requires_grad_()
        before = size(x)
        (slope,) = torch.autograd.grad(before.sum(), x)
    x = x.detach()
    before = before.detach()
    length = before / slope.square().flatten(1).sum(dim=1).clamp_min(torch.finfo(slope.dtype).tiny)
    found = x
    open_N = torch.ones_like(before, dtype=torch.bool)
    for _ in range(TRIALS):
        if not open_N.any():
            break
        tried = x - length[:, None, None, None] * slope
        with torch.no_grad():
            falls = open_N & (size(tried) < before)
        found = torch.where(falls[:, None, None, None], tried, found)
        open_N = open_N & ~falls
        length = length / 2
    return found
