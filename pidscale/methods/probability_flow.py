"""A teacher's own sampler: the probability-flow ODE from noise to a clean field in a fixed number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import TEACHER_STEPS, Generator, Teacher
from pidscale.methods.base import SAMPLE, TEACHER, Question
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class ProbabilityFlow:
    """Solve dx / dsigma = (x - D(x, sigma)) / sigma from noise.

    Attributes:
        steps: Number of solver steps.
        solver: `euler`, `heun` or `dpm2m`.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = TEACHER_STEPS
    solver: str = "heun"
    source: ClassVar[str] = "Karras et al., Elucidating the design space of diffusion-based generative models, 2022"
    takes: ClassVar[frozenset[str]] = frozenset({TEACHER})
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Solve the ODE from the noise of each sample."""
        assert isinstance(generator, Teacher)
        eps = question.eps_NCYX.to(generator.device)
        x = generator.generate(eps, question.params_NP, self.steps, self.solver)
        return Samples(generator.to_physical(x, question.params_NP), question.params_NP)
