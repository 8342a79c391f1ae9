"""Refined samples of a student: descend the residual over the noise that each was made from (generator/refine.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import Generator, OneCall
from pidscale.generator.refine import refined
from pidscale.methods.base import SAMPLE, STUDENT, Question
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class Refine:
    """Lower the residual of each sample by at most `steps` evaluations with their gradient.

    Attributes:
        steps: Evaluations of each sample at most.
        tau: Distance that costs as much as one residual scale.
        optimiser: `lbfgs` or `adam`.
    """

    steps: int = 20
    tau: float = 0.5
    optimiser: str = "lbfgs"
    source: ClassVar[str] = "Zhang et al., Physics-informed distillation of diffusion models, ICML 2026 (PIDDM-ref)"
    takes: ClassVar[frozenset[str]] = frozenset({STUDENT})
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Descend from each noise."""
        assert isinstance(generator, OneCall)
        eps = question.eps_NCYX.to(generator.device)
        found = refined(generator, eps, question.params_NP, self.steps, tau=self.tau, optimiser=self.optimiser)
        return Samples(generator.join(found.fields), question.params_NP)
