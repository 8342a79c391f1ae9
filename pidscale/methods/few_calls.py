"""Several calls: the student's field is made noisy again, and a further call removes the noise (generator/more_calls.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.config import UserError
from pidscale.generator.generator import Generator
from pidscale.generator.more_calls import more_calls, several_calls
from pidscale.generator.student import Student
from pidscale.methods.base import SAMPLE, STUDENT, Question
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class FewCalls:
    """Call a student once, and then its teacher, or itself if it was trained for that, on that field with noise added.

    Fewer than 2 calls raise a UserError.

    Attributes:
        calls: Total number of network calls, 2 or more.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    calls: int = 2
    source: ClassVar[str] = "Song et al., Consistency models, 2023, algorithm 1, with the teacher after the first call"
    takes: ClassVar[frozenset[str]] = frozenset({STUDENT})
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def __post_init__(self) -> None:
        if self.calls < 2:
            raise UserError(f"method.calls={self.calls}: expected 2 or more; for one call use the method one_call")

    def run(self, generator: Generator, question: Question) -> Samples:
        """Generate each field by `calls` network calls. The added noise is a function of the counters."""
        assert isinstance(generator, Student)
        eps = question.eps_NCYX.to(generator.device)
        if self.calls <= 1 + len(generator.card.call_levels):
            further = [question.noise(generator, f"again/{number}") for number in range(self.calls - 1)]
            x = several_calls(generator, eps, further, question.params_NP)
        else:
            again = question.noise(generator, "again")
            x = more_calls(generator, generator.teacher, eps, again, question.params_NP, self.calls - 1)
        return Samples(generator.to_physical(x, question.params_NP), question.params_NP)
