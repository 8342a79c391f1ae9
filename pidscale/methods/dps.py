"""Diffusion posterior sampling: a teacher pulled towards known values (Chung et al., ICLR 2023, algorithm 1).

The paper's state is x_vp = alpha x with alpha^2 = 1 / (1 + sigma^2), and its pull, in that state, is

    zeta / |M (D - known)| * grad |M (D - known)|^2 = 2 zeta grad |M (D - known)|.

In the state x of this library that is 2 zeta (1 + sigma^2) grad_x |M (D - known)|. The teacher's own solver takes the place
of the paper's ancestral sampling, so that without a pull the samples are the teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import Generator
from pidscale.methods.base import TEACHER, Question, check_given, check_settings
from pidscale.methods.guided import guided
from pidscale.methods.search import TASKS
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class Dps:
    """Sample a teacher with a pull towards known values at every step. A setting out of range raises a UserError.

    Attributes:
        steps: Number of Euler steps; 1000 in the paper.
        zeta: Length of the pull; 0.1 to 1 in the paper.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = 1000
    zeta: float = 0.3
    source: ClassVar[str] = "Chung et al., Diffusion posterior sampling for general noisy inverse problems, ICLR 2023"
    takes: ClassVar[frozenset[str]] = frozenset({TEACHER})
    answers: ClassVar[frozenset[str]] = TASKS

    def __post_init__(self) -> None:
        check_settings(self, steps=1, zeta=0)

    def run(self, generator: Generator, question: Question) -> Samples:
        """Sample a field for each observation. A varying parameter that is not given raises a UserError."""
        check_given(self, question)

        def weights(step: int, level: float) -> tuple[float, float]:
            return 2 * self.zeta * (1 + level**2), 0.0

        return guided(generator, question, self.steps, "euler", weights)
