"""Tasks answered with a student: a search for the noise whose field has the least energy (generator/tasks/energy.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pidscale.generator.generator import Generator
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.tasks.likeliest import Answer, solve_task
from pidscale.generator.tasks.search import Search
from pidscale.methods.base import STUDENT, Question
from pidscale.pde.base import Samples

TASKS = frozenset({"forward", "inverse", "reconstruct"})


def answer_samples(generator: Generator, answer: Answer) -> Samples:
    """Return the fields and parameters of an answer as joint samples."""
    fields = generator.join(answer.fields)
    columns = [answer.fields[name] for name in generator.pde.varying]
    return Samples(fields, torch.stack(columns, dim=1) if columns else fields.new_zeros(len(fields), 0))


def known_by_name(generator: Generator, params_NP: Tensor) -> dict[str, Tensor]:
    """Return the varying parameters that are known for every sample, each [N], by name."""
    columns = zip(generator.pde.varying, params_NP.T, strict=True)
    return {name: column for name, column in columns if not column.isnan().any()}


@dataclass(frozen=True)
class LatentSearch:
    """Search a student's noise for the least energy: misfit of the known values, residual and prior.

    Attributes:
        steps: Largest number of evaluations (a network call and its gradient) for each start.
        starts: Number of draws that the search starts from.
        physics: Weight of the residual.
        optimiser: `lbfgs` or `adam`.
        field_steps: Largest number of evaluations of a second search, over the field itself; 0 for none.
        field_prior: Weight that holds the second search to the answer of the first.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = Search.steps
    starts: int = Search.starts
    physics: float = Search.physics
    optimiser: str = Search.optimiser
    field_steps: int = Search.field_steps
    field_prior: float = Search.field_prior
    source: ClassVar[str] = "Zhang et al., Physics-informed distillation of diffusion models, ICML 2026, algorithm 3"
    takes: ClassVar[frozenset[str]] = frozenset({STUDENT})
    answers: ClassVar[frozenset[str]] = TASKS

    def run(self, generator: Generator, question: Question) -> Samples:
        """Search from `starts` draws for each observation."""
        assert isinstance(generator, OneStepGenerator) and question.known is not None
        own = (self.optimiser, self.field_steps, self.field_prior)
        search = Search(self.steps, self.starts, question.seed, 64, self.physics, *own)
        params = known_by_name(generator, question.params_NP)
        return answer_samples(generator, solve_task(generator, question.known, params, search, question.first))
