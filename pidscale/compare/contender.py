"""The rows of a comparison: the generator that is asked, the method, and the finish of its samples.

Knows no metrics and no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.config import EvaluateSettings
from pidscale.generator.artifact import CONTROL
from pidscale.generator.generator import Generator
from pidscale.methods import FINISHES, METHODS, Finish, Method
from pidscale.methods.controls import Head, Shuffled, Smooth, SolveInput, Trivial, Truth
from pidscale.methods.few_calls import FewCalls
from pidscale.methods.one_call import OneCall
from pidscale.methods.probability_flow import ProbabilityFlow
from pidscale.methods.refine import Refine
from pidscale.pde.head import has_head, is_exact

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
        head: Number of solver steps behind the generator's own fields; None for those that it was made with.
    """

    name: str
    trained: str
    method: Method
    finish: Finish | None = None
    head: int | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """Names and settings of method and finish, as plain JSON values."""
        found = {"method": _name_of(self.method, METHODS), **asdict(self.method)}  # type: ignore[call-overload]
        found |= {} if self.finish is None else {"finish": _name_of(self.finish, FINISHES)}
        return found if self.head is None else found | {"head": self.head}


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
    yield from finished(TEACHER, generators[TEACHER], ProbabilityFlow(max(settings.teacher_steps)), settings.head_steps)
    if CONTROL in generators:
        yield Contender(CONTROL, CONTROL, OneCall())
        yield from finished(CONTROL, generators[CONTROL], OneCall(), settings.head_steps)
    yield Contender("sample-then-solve", STUDENT, OneCall(), SolveInput(), head=0)
    yield Contender(STUDENT, STUDENT, OneCall())
    yield from headed(STUDENT, generators[STUDENT], OneCall(), settings.head_steps)
    for calls in sorted(settings.calls):
        yield Contender(f"student-{calls}", STUDENT, FewCalls(calls))
    if settings.refine > 0:
        yield Contender("student-refined", STUDENT, Refine(settings.refine))


def finished(name: str, generator: Generator, method: Method, head_steps: Sequence[int]) -> Iterator[Contender]:
    """Yield the rows of a network behind which something else than a network lowers the residual.

    Args:
        name: Name of the generator in the comparison.
        generator: The generator.
        method: The method that it is asked by.
        head_steps: Numbers of solver steps.

    Yields:
        The row of a smoother, and those of `headed`.
    """
    yield Contender(f"{name}+smooth3", name, method, Smooth(3), head=0)
    yield from headed(name, generator, method, head_steps)


def headed(name: str, generator: Generator, method: Method, head_steps: Sequence[int]) -> Iterator[Contender]:
    """Yield the rows of a network with other numbers of solver steps behind it than those that it was made with.

    Args:
        name: Name of the generator in the comparison.
        generator: The generator.
        method: The method that it is asked by.
        head_steps: Numbers of solver steps.

    Yields:
        A row without steps, if it was made with some, and one for each other number, or one for all if a step is exact.
        None for an equation without steps.
    """
    if not has_head(generator.pde):
        return
    if generator.head:
        yield Contender(f"{name}-head0", name, method, head=0)
    exact = is_exact(generator.pde)  # any number of steps is one
    if exact and (not head_steps or generator.head):
        return
    for steps in [1] if exact else sorted(set(head_steps) - {generator.head}):
        title = f"{name}+head" if exact else f"{name}+head-{steps}"
        if generator.steps_apart:
            yield Contender(title, name, method, head=steps)
        else:
            yield Contender(title, name, method, Head(steps), head=0)
