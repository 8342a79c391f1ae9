"""The rows of a comparison: the generator that is asked, the method, and the finish of its samples.

Knows no metrics and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.config import EvaluateSettings
from pidscale.generator.artifact import CONTROL
from pidscale.generator.generator import Generator
from pidscale.methods import FINISHES, METHODS, Finish, Method
from pidscale.methods.controls import Shuffled, Smooth, SolveInput, Trivial, Truth
from pidscale.methods.few_calls import FewCalls
from pidscale.methods.one_call import OneCall
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.methods.refine import Refine

NONE = "none"
TEACHER = "teacher"
STUDENT = "student"


@dataclass(frozen=True)
class Contender:
    """A row of a comparison.

    Attributes:
        name: Name of the row.
        trained: Name of the generator in the comparison; `none` for truths and their controls, which call no network.
        method: The method that the generator is asked by.
        finish: The change of its samples afterwards; None for none.
    """

    name: str
    trained: str
    method: Method
    finish: Finish | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """Names and settings of method and finish, as plain JSON values."""
        found = {"method": _name_of(self.method, METHODS), **asdict(self.method)}  # type: ignore[call-overload]
        return found if self.finish is None else found | {"finish": _name_of(self.finish, FINISHES)}


def _name_of(one: object, table: Mapping[str, type[Any]]) -> str:
    """Return the key of a method in its table; the name of its class if it is not there."""
    return next((name for name, kind in table.items() if type(one) is kind), type(one).__name__)


def contenders(settings: EvaluateSettings, generators: Mapping[str, Generator]) -> Iterator[Contender]:
    """Yield the rows of a run's report in their order.

    Args:
        settings: The settings `evaluate`, which select the rows.
        generators: The generators of the run: `teacher`, and the students by the names of their folders.

    Yields:
        Truths and their controls, then the rows of the teacher and of each student.
    """
    yield Contender("truth", NONE, Truth())
    yield Contender("trivial", NONE, Trivial())
    yield Contender("shuffled", NONE, Shuffled())
    for steps in sorted(settings.teacher_steps):
        yield Contender(f"teacher-heun-{steps}", TEACHER, ProbabilityFlow(steps))
    yield Contender("teacher+smooth3", TEACHER, ProbabilityFlow(max(settings.teacher_steps)), Smooth(3))
    if CONTROL in generators:
        yield Contender(CONTROL, CONTROL, OneCall())
        yield Contender(f"{CONTROL}+smooth3", CONTROL, OneCall(), Smooth(3))
    yield Contender("sample-then-solve", STUDENT, OneCall(), SolveInput())
    yield Contender(STUDENT, STUDENT, OneCall())
    for calls in sorted(settings.calls):
        yield Contender(f"student-{calls}", STUDENT, FewCalls(calls))
    if settings.refine > 0:
        yield Contender("student-refined", STUDENT, Refine(settings.refine))
