"""The rows of a comparison: who trained the generator, the method it is asked with, and what is done to its samples.

Knows no metrics and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.config import EvaluateSettings
from pidscale.generator.artifact import TWIN
from pidscale.generator.generator import Generator
from pidscale.methods import FINISHES, METHODS, Finish, Method
from pidscale.methods.controls import Shuffled, Smooth, SolveInput, Trivial, Truth
from pidscale.methods.few_calls import FewCalls
from pidscale.methods.one_call import OneCall
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.methods.refine import Refine

NONE, TEACHER, STUDENT = "none", "teacher", "student"


@dataclass(frozen=True)
class Contender:
    """A row.

    Attributes:
        name: What the row is called.
        trained: Whose network is asked: a name of the generators of a comparison, or `none` for truths and their controls.
        method: How it is asked.
        finish: What is done to its samples afterwards, if anything.
    """

    name: str
    trained: str
    method: Method
    finish: Finish | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """Method and finish with their settings, as plain JSON values."""
        found = {"method": _name_of(self.method, METHODS), **asdict(self.method)}  # type: ignore[call-overload]
        return found if self.finish is None else found | {"finish": _name_of(self.finish, FINISHES)}


def _name_of(one: object, table: Mapping[str, type[Any]]) -> str:
    """The name of a method in its table, or that of its class where it is in none."""
    return next((name for name, kind in table.items() if type(one) is kind), type(one).__name__)


def contenders(settings: EvaluateSettings, generators: Mapping[str, Generator]) -> Iterator[Contender]:
    """Yield the rows of a run's report, in their order.

    Args:
        settings: Which rows are wanted.
        generators: `teacher`, and the students by the names of their folders.

    Yields:
        Truths and controls, the teacher, and each student.
    """
    yield Contender("truth", NONE, Truth())
    yield Contender("trivial", NONE, Trivial())
    yield Contender("shuffled", NONE, Shuffled())
    for steps in sorted(settings.teacher_steps):
        best = ProbabilityFlow(steps)
        yield Contender(f"teacher-heun-{steps}", TEACHER, best)
    yield Contender("teacher+smooth3", TEACHER, best, Smooth(3))
    if TWIN in generators:
        yield Contender(TWIN, TWIN, OneCall())
        yield Contender(f"{TWIN}+smooth3", TWIN, OneCall(), Smooth(3))
    yield Contender("sample-then-solve", STUDENT, OneCall(), SolveInput())
    yield Contender(STUDENT, STUDENT, OneCall())
    for calls in sorted(settings.calls):
        yield Contender(f"student-{calls}", STUDENT, FewCalls(calls))
    if settings.refine > 0:
        yield Contender("student-refined", STUDENT, Refine(settings.refine))
