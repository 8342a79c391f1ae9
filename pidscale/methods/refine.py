"""Refined samples of a student: descend the residual over the noise of each sample (generator/refine.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import Generator
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.refine import refine_from
from pidscale.methods.base import SAMPLE, STUDENT, Question
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class Refine:
    """Lower the residual of each sample by descent over its noise.

    Attributes:
        steps: Largest number of evaluations (a network call and its gradient) for each sample.
        tau: Distance that costs as much as one residual scale.
        optimiser: `lbfgs` or `adam`.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = 20
    tau: float = 0.5
    optimiser: str = "lbfgs"
    source: ClassVar[str] = "Zhang et al., Physics-informed distillation of diffusion models, ICML 2026 (PIDDM-ref)"
    takes: ClassVar[frozenset[str]] = frozenset({STUDENT})
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Refine the sample of each noise."""
        assert isinstance(generator, OneStepGenerator)
        eps = question.eps_NCYX.to(generator.device)
        found = refine_from(generator, eps, question.params_NP, self.steps, self.tau, self.optimiser)
        return Samples(generator.join(found.fields), question.params_NP)
