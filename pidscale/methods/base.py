"""The interface of methods: a question, the samples that a method answers it with, and their cost, counted while it runs.

A method is a frozen dataclass of its settings with one function, `run`. It knows no files, no ranks and no metrics; answers
are measured in compare/. Shapes: eps_NCYX noise, params_NP varying parameters, fields_NCYX physical fields.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar, cast

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.generator.generator import Generator
from pidscale.generator.student import Student
from pidscale.generator.tasks.observations import Observation
from pidscale.pde.base import Pde, Samples

SAMPLE = "sample"  # the task of a question without an observation
STUDENT = "student"
TEACHER = "teacher"
FLOW_TEACHER = "teacher:flow"
REGRESSION = "regression"


@dataclass(frozen=True)
class Question:
    """A question, the same for every method of a comparison.

    Attributes:
        eps_NCYX: Standard normal noise of N samples.
        params_NP: Varying parameters; NaN where a task does not give them.
        counters: Consecutive numbers of the samples, int64 [N], which further noise follows from.
        task: `sample`, `forward`, `inverse` or `reconstruct`.
        known: Observation of each sample; None for `sample`.
        truth: N held-out truths that controls are made from; None if there are none.
        seed: Seed of further noise and of the starts of a search; `eps_NCYX` may be drawn with another.
        stream: Random stream of further noise.
        training: Training fields and their parameters, on the CPU; None if there are none.
    """

    eps_NCYX: Tensor
    params_NP: Tensor
    counters: Tensor
    task: str = SAMPLE
    known: Observation | None = None
    truth: Samples | None = None
    seed: int = 0
    stream: str = "evaluate"
    training: Samples | None = None

    def __len__(self) -> int:
        return len(self.eps_NCYX)

    @property
    def first(self) -> int:
        """Number of the first sample. Raises ValueError if the numbers are not consecutive."""
        first = int(self.counters[0])
        if self.counters.tolist() != list(range(first, first + len(self))):
            raise ValueError(f"counters={self.counters.tolist()}: expected consecutive numbers")
        return first

    def noise(self, generator: Generator, name: str) -> Tensor:
        """Draw further standard normal noise.

        Args:
            generator: A generator of the question's equation.
            name: Name of the noise within the question's stream.

        Returns:
            Noise [N, C, Y, X], a function of seed, stream, name and counters.
        """
        counters = range(self.first, self.first + len(self))
        return generator.eps(counters, self.seed, f"{self.stream}/{name}")

    def parts(self, batch: int) -> Iterator[Question]:
        """Yield the question in parts of at most `batch` samples."""
        for first in range(0, len(self), batch):
            some = slice(first, first + batch)
            yield replace(
                self,
                eps_NCYX=self.eps_NCYX[some],
                params_NP=self.params_NP[some],
                counters=self.counters[some],
                known=None if self.known is None else self.known[some],
                truth=None if self.truth is None else Samples(self.truth.fields[some], self.truth.params[some]),
            )


@dataclass(frozen=True)
class Cost:
    """The cost of a sample, counted while a method runs.

    Attributes:
        calls: Network calls, mean over samples.
        gradients: Network calls that a gradient was computed through, mean over samples.
        residuals: Evaluations of the equation's residual, mean over samples.
        seconds: Wall time for a sample, median over batches.
    """

    calls: float = 0.0
    gradients: float = 0.0
    residuals: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The answer of a method.

    Attributes:
        samples: Physical fields and their parameters, on the CPU.
        cost: Cost of a sample.
    """

    samples: Samples
    cost: Cost


class Method(Protocol):
    """A way to ask a generator: a frozen dataclass whose fields are its settings.

    Attributes:
        source: The paper that it follows.
        takes: Kinds of networks that it can ask: `student`, `teacher`, `teacher:flow`, `regression`; empty if it calls none.
        answers: Kinds of questions that it answers: `sample`, `forward`, `inverse`, `reconstruct`.
    """

    source: ClassVar[str]
    takes: ClassVar[frozenset[str]]
    answers: ClassVar[frozenset[str]]

    def run(self, generator: Generator, question: Question) -> Samples:
        """Answer a question.

        Args:
            generator: A generator of a kind in `takes`; any generator of the equation if `takes` is empty.
            question: A question of a kind in `answers`.

        Returns:
            Physical fields [N, C, Y, X] and their parameters [N, P].
        """


class Finish(Protocol):
    """A change of finished samples that calls no network and keeps their inputs.

    Attributes:
        solves: Whether it replaces the solution by the numerical one, which a comparison computes anyway.
    """

    solves: ClassVar[bool]

    def run(self, generator: Generator, samples: Samples) -> Samples:
        """Return the changed samples."""


@dataclass
class Tally:
    """Counts of samples.

    Attributes:
        calls: Samples that went through a network.
        gradients: Samples that a gradient was computed through the network for.
        residuals: Samples whose residual was evaluated.
    """

    calls: int = 0
    gradients: int = 0
    residuals: int = 0


class _CountedDenoiser:
    """A denoiser that counts the samples that go through it, forwards and backwards."""

    def __init__(self, denoiser: Any, tally: Tally) -> None:
        self._denoiser = denoiser
        self._tally = tally

    def __call__(self, x_BCYX: Tensor, *others: Any) -> Tensor:
        count = len(x_BCYX)
        self._tally.calls += count
        found: Tensor = self._denoiser(x_BCYX, *others)
        if found.requires_grad:
            found.register_hook(lambda gradient: self._backwards(count))
        return found

    def _backwards(self, count: int) -> None:
        self._tally.gradients += count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)


Equation = TypeVar("Equation", bound=Pde)


def _counted_pde(pde: Equation, tally: Tally) -> Equation:
    """Return the equation with a residual that counts samples."""

    def residual(self: Any, window: Any, fields_BCYX: Tensor, params_BP: Tensor | None = None) -> Any:
        tally.residuals += len(fields_BCYX)
        return pde.residual(window, fields_BCYX, params_BP)

    kind: type[Any] = type(f"Counted{type(pde).__name__}", (type(pde),), {"residual": residual})
    counted = object.__new__(kind)
    counted.__dict__.update(vars(pde))
    return cast(Equation, counted)


Asked = TypeVar("Asked", bound=Generator)


@contextmanager
def counting(generator: Asked) -> Iterator[tuple[Asked, Tally]]:
    """Count the cost of what the body does with a generator, in float32.

    Args:
        generator: The generator.

    Yields:
        The generator with counters in its networks and its equation, and the counts.
    """
    tally = Tally()
    generator = generator.with_precision("fp32")
    changes: dict[str, Any] = {
        "denoiser": _CountedDenoiser(generator.denoiser, tally),
        "pde": _counted_pde(generator.pde, tally),
    }
    if isinstance(generator, Student) and generator.teacher is not None:
        teacher = generator.teacher
        changes["teacher"] = replace(teacher, denoiser=cast(Any, _CountedDenoiser(teacher.denoiser, tally)))
    yield replace(generator, **changes), tally


def kinds_of(generator: Generator) -> frozenset[str]:
    """Return the kinds of a generator that a method may name: `student` or `teacher`, alone and with the kind of noise."""
    kind = str(generator.card.kind)
    return frozenset({kind, f"{kind}:{generator.noise.kind}"})


def check_question(method: Method, generator: Generator, question: Question) -> None:
    """Check that a method can ask a generator a question.

    Args:
        method: The method.
        generator: The generator.
        question: The question.

    Raises:
        UserError: When the method does not take this kind of generator or does not answer this kind of question.
    """
    name = type(method).__name__
    if method.takes and not method.takes & kinds_of(generator):
        has = max(kinds_of(generator), key=len)
        raise UserError(f"{name}: takes {' or '.join(sorted(method.takes))}, not a generator of kind {has}")
    if question.known is not None and question.known.readings:
        raise UserError(f"{name}: takes values at grid points only; readings go to a student's reconstruct")
    if question.task not in method.answers:
        raise UserError(f"{name}: does not answer {question.task!r}; it answers {', '.join(sorted(method.answers))}")


def check_settings(method: Method, **least: float) -> None:
    """Check the settings of a method that have a least value.

    Args:
        method: The method.
        **least: The least value of each setting.

    Raises:
        UserError: When a value is below it, or not finite.
    """
    for name, bound in least.items():
        value = getattr(method, name)
        if not bound <= value < math.inf:
            raise UserError(f"method.{name}={value}: expected {bound} or more")


def check_given(method: Method, question: Question) -> None:
    """Check that a question gives every varying parameter, for a method that cannot search for one.

    Args:
        method: The method.
        question: The question.

    Raises:
        UserError: When one is not given.
    """
    if question.params_NP.isnan().any():
        raise UserError(f"{type(method).__name__}: needs every varying parameter; give them as params")


def ask(method: Method, generator: Generator, question: Question, batch: int) -> Outcome:
    """Ask a generator a question by a method, and count the cost.

    A kind of generator or question that the method does not take raises a UserError.

    Args:
        method: The method.
        generator: The generator.
        question: The question.
        batch: Number of samples handled at once.

    Returns:
        Samples on the CPU, and their cost.
    """
    check_question(method, generator, question)
    parts: list[Samples] = []
    seconds: list[float] = []
    with counting(generator) as (counted, tally):
        for part in question.parts(batch):
            began = time.perf_counter()
            found = method.run(counted, part)
            parts.append(Samples(found.fields.detach().cpu(), found.params.detach().cpu()))
            seconds.append((time.perf_counter() - began) / len(part))
    samples = Samples(torch.cat([p.fields for p in parts]), torch.cat([p.params for p in parts]))
    cost = Cost(
        calls=tally.calls / len(question),
        gradients=tally.gradients / len(question),
        residuals=tally.residuals / len(question),
        seconds=statistics.median(seconds),
    )
    return Outcome(samples, cost)


def apply_finish(finish: Finish, generator: Generator, outcome: Outcome) -> Outcome:
    """Change the samples of an outcome and add the time of that to its cost.

    Args:
        finish: The change.
        generator: The generator that was asked.
        outcome: Samples and cost.

    Returns:
        The changed samples and their cost.
    """
    began = time.perf_counter()
    samples = finish.run(generator, outcome.samples)
    spent = (time.perf_counter() - began) / len(samples.fields)
    return Outcome(samples, replace(outcome.cost, seconds=outcome.cost.seconds + spent))
