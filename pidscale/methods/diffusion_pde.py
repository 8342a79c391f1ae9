"""DiffusionPDE: a teacher pulled towards known values, and at last towards the equation (Huang et al., NeurIPS 2024).

The sampler is the teacher's, with Heun's method. After each of the first 80 % of the steps comes a pull towards the known
values; after the others one of a tenth of that, and one towards the equation. Norms are taken of the field that the network
returns in the second half of Heun's step, and gradients go through both halves.

The paper's weights are for its own units and for 2,000 steps. The defaults here are those of its Poisson experiment in
units of the model; the pull of a step does not depend on the number of steps, so that fewer steps need larger weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import Generator
from pidscale.methods.base import SAMPLE, TEACHER, Question, check_given, check_settings
from pidscale.methods.guided import guided
from pidscale.methods.search import TASKS
from pidscale.pde.base import Samples

FIRST = 0.8  # share of the steps without the equation
LATER = 0.1  # factor of the pull towards known values after these


@dataclass(frozen=True)
class DiffusionPde:
    """Sample a teacher with a pull towards known values and the equation. A setting out of range raises a UserError.

    Attributes:
        steps: Number of Heun steps; 2000 in the paper.
        known: Weight of the norm of the misfit.
        physics: Weight of the relative l2 residual, in the last fifth of the steps.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = 2000
    known: float = 3.0
    physics: float = 0.02
    source: ClassVar[str] = "Huang et al., DiffusionPDE, NeurIPS 2024"
    takes: ClassVar[frozenset[str]] = frozenset({TEACHER})
    answers: ClassVar[frozenset[str]] = TASKS | {SAMPLE}

    def __post_init__(self) -> None:
        check_settings(self, steps=1, known=0, physics=0)

    def run(self, generator: Generator, question: Question) -> Samples:
        """Sample each field. A varying parameter that is not given raises a UserError."""
        check_given(self, question)
        known = self.known if question.known is not None else 0.0

        def weights(step: int, level: float) -> tuple[float, float]:
            return (known, 0.0) if step <= FIRST * self.steps else (LATER * known, self.physics)

        return guided(generator, question, self.steps, "heun", weights)
