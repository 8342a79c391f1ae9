"""A teacher's own sampler: the probability-flow ODE from noise to a clean field in a fixed number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import TEACHER_STEPS, Generator, Teacher
from pidscale.methods.base import SAMPLE, TEACHER, Question
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class ProbabilityFlow:
    """Integrate dx / dsigma = (x - D(x, sigma)) / sigma.

    Attributes:
        steps: Solver steps.
        solver: `euler`, `heun` or `dpm2m`.
    """

    steps: int = TEACHER_STEPS
    solver: str = "heun"
    source: ClassVar[str] = "Karras et al., Elucidating the design space of diffusion-based generative models, 2022"
    takes: ClassVar[frozenset[str]] = frozenset({TEACHER})
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Integrate from each noise."""
        assert isinstance(generator, Teacher)
        eps = question.eps_NCYX.to(generator.device)
        x = generator.generate(eps, question.params_NP, self.steps, self.solver)
        return Samples(generator.finished(x), question.params_NP)
