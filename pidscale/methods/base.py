"""The seam of methods: a question, the fields that a method answers it with, and what that cost, counted while it runs.

A method is a frozen dataclass of its settings with one function, `run`. It knows no files, no ranks and no metrics; how its
answers are judged is compare/'s business. Shapes: eps_NCYX noise, params_NP varying parameters, fields_NCYX physical fields.
"""

from __future__ import annotations

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

SAMPLE = "sample"  # a question without an observation
STUDENT, TEACHER, FLOW_TEACHER = "student", "teacher", "teacher:flow"


@dataclass(frozen=True)
class Question:
    """What every method of a comparison is asked, the same for all of them.

    Attributes:
        eps_NCYX: Common noise.
        params_NP: Varying parameters; NaN where a task does not know them.
        counters: The number of each sample, from which further noise follows.
        task: `sample`, `forward`, `inverse` or `reconstruct`.
        known: What is known, of a task; None for samples.
        truth: Held-out truths, which controls are made of; None where there are none.
        seed: Seed of further noise.
        stream: Random stream of further noise.
    """

    eps_NCYX: Tensor
    params_NP: Tensor
    counters: Tensor
    task: str = SAMPLE
    known: Observation | None = None
    truth: Samples | None = None
    seed: int = 0
    stream: str = "evaluate"

    def __len__(self) -> int:
        return len(self.eps_NCYX)

    def noise(self, generator: Generator, name: str) -> Tensor:
        """Return further standard normal noise [N, C, Y, X], a function of the counters and this name."""
        first = int(self.counters[0])
        return generator.eps(range(first, first + len(self)), self.seed, f"{self.stream}/{name}")

    def parts(self, batch: int) -> Iterator[Question]:
        """Yield the question in parts of `batch` samples."""
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
    """What a sample costs, mean over samples; counted, never declared.

    Attributes:
        calls: Network calls.
        gradients: Of these, calls that a gradient went back through.
        residuals: Evaluations of the equation's residual.
        seconds: Wall time, the median over batches.
    """

    calls: float = 0.0
    gradients: float = 0.0
    residuals: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a method made.

    Attributes:
        samples: Physical fields on the CPU, and their parameters.
        cost: What they cost.
    """

    samples: Samples
    cost: Cost


class Method(Protocol):
    """A way to ask a generator: a frozen dataclass whose fields are its settings.

    Attributes:
        source: The paper and equation that it follows.
        takes: Generators that it can ask: `student`, `teacher`, `teacher:flow`; empty where no network is called.
        answers: Questions that it answers: `sample`, `forward`, `inverse`, `reconstruct`.
    """

    source: ClassVar[str]
    takes: ClassVar[frozenset[str]]
    answers: ClassVar[frozenset[str]]

    def run(self, generator: Generator, question: Question) -> Samples:
        """Answer a question.

        Args:
            generator: A generator of a kind in `takes`; its equation, grid and units where no network is called.
            question: The question, of a kind in `answers`.

        Returns:
            Physical fields [N, C, Y, X] and their parameters [N, P].
        """


class Finish(Protocol):
    """What is done to finished samples without asking the network again; their inputs stay as they are.

    Attributes:
        solves: Whether their solution becomes the numerical one, which a comparison has at hand.
    """

    solves: ClassVar[bool]

    def run(self, generator: Generator, samples: Samples) -> Samples:
        """Return the samples afterwards."""


@dataclass
class Tally:
    """Counts of samples that passed a network forwards and backwards, and a residual."""

    calls: int = 0
    gradients: int = 0
    residuals: int = 0


class _CountedDenoiser:
    """A denoiser that counts the samples which go through it, and those that a gradient comes back from."""

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
    """An equation equal in all but that its residual counts samples."""

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
    """Yield the generator with counters in its networks and its equation, and their tally."""
    tally = Tally()
    changes: dict[str, Any] = {
        "denoiser": _CountedDenoiser(generator.denoiser, tally),
        "pde": _counted_pde(generator.pde, tally),
    }
    if isinstance(generator, Student) and generator.teacher is not None:
        teacher = generator.teacher
        changes["teacher"] = replace(teacher, denoiser=cast(Any, _CountedDenoiser(teacher.denoiser, tally)))
    yield replace(generator, **changes), tally


def kinds_of(generator: Generator) -> frozenset[str]:
    """Return what a generator is to a method: `student`, or `teacher` and perhaps `teacher:flow`."""
    kind = str(generator.card.kind)
    return frozenset({kind, f"{kind}:{generator.noise.kind}"})


def check_asked(method: Method, generator: Generator, question: Question) -> None:
    """Check that a method can ask this generator this question.

    Args:
        method: The method.
        generator: The generator.
        question: The question.

    Raises:
        UserError: When the method takes no such generator or does not answer such a question.
    """
    name = type(method).__name__
    if method.takes and not method.takes & kinds_of(generator):
        has = " ".join(sorted(kinds_of(generator)))
        raise UserError(f"{name}: takes {' or '.join(sorted(method.takes))}, not a generator of kind {has}")
    if question.task not in method.answers:
        raise UserError(f"{name}: does not answer {question.task!r}; it answers {', '.join(sorted(method.answers))}")


def ask(method: Method, generator: Generator, question: Question, batch: int) -> Outcome:
    """Ask a generator with a method, `batch` samples at a time, and count what it costs.

    Args:
        method: The method.
        generator: The generator.
        question: The question.
        batch: Samples that are handled together.

    Returns:
        Samples on the CPU, and their cost.

    Raises:
        UserError: When the method takes no such generator or does not answer such a question.
    """
    check_asked(method, generator, question)
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


def finished(finish: Finish, generator: Generator, outcome: Outcome) -> Outcome:
    """Return an outcome after a finish, whose time is added to its cost."""
    began = time.perf_counter()
    samples = finish.run(generator, outcome.samples)
    spent = (time.perf_counter() - began) / len(samples.fields)
    return Outcome(samples, replace(outcome.cost, seconds=outcome.cost.seconds + spent))
