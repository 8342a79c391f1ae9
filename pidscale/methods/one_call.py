"""One network call of a student: d(eps) = D(sigma_max eps, sigma_max). Knows no files and no ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pidscale.generator.generator import Generator
from pidscale.methods.base import SAMPLE, STUDENT, Question
from pidscale.pde.base import Samples


@dataclass(frozen=True)
class OneCall:
    """Call a student once, as it was trained."""

    source: ClassVar[str] = "the student's own map"
    takes: ClassVar[frozenset[str]] = frozenset({STUDENT})
    answers: ClassVar[frozenset[str]] = frozenset({SAMPLE})

    def run(self, generator: Generator, question: Question) -> Samples:
        """Generate each field by one call."""
        eps = question.eps_NCYX.to(generator.device)
        return Samples(generator.generate_physical(eps, question.params_NP), question.params_NP)
