"""D-Flow: a search for the noise from which a teacher's whole sampler leads to the known values (Ben-Hamu et al., ICML 2024).

Minimised over the noise, by L-BFGS through all steps of the sampler, is the energy of a student's search
(generator/tasks/energy.py): the squared misfit of the known values and the squared residual. The paper has no prior: where
the search starts, and how few steps it takes, keep the noise likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pidscale.caller import sheltered
from pidscale.diffusion.solvers import integrate
from pidscale.generator.generator import Generator
from pidscale.generator.tasks.energy import PosedTask
from pidscale.generator.tasks.likeliest import best_answers
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.search import MOST, Search, Start, find_minima
from pidscale.methods.base import SAMPLE, TEACHER, Question, check_settings
from pidscale.methods.search import TASKS, answer_samples
from pidscale.pde.base import Samples
from pidscale.pde.terms import NORMS

SOLVER = "dpm2m"  # one call a step


@dataclass(frozen=True)
class DFlow:
    """Search the noise of a teacher's sampler from that of the question. A setting out of range raises a UserError.

    Attributes:
        steps: Number of steps of the sampler, of one call each.
        iterations: Largest number of evaluations (a run of the sampler and its gradient); the paper takes 20 steps of L-BFGS.
        physics: Weight of the residual.
        prior: Weight of |eps|^2 / 2; 0 in the paper.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = 10
    iterations: int = 25
    physics: float = 1.0
    prior: float = 0.0
    source: ClassVar[str] = (
        "Ben-Hamu et al., D-Flow: differentiating through flows for controlled generation, ICML 2024"
    )
    takes: ClassVar[frozenset[str]] = frozenset({TEACHER})
    answers: ClassVar[frozenset[str]] = TASKS | {SAMPLE}

    def __post_init__(self) -> None:
        check_settings(self, steps=1, iterations=1, physics=0, prior=0)

    @sheltered
    def run(self, generator: Generator, question: Question) -> Samples:
        """Search from the noise of each sample, and for parameters that are not given from the middle of their range."""
        levels = generator.noise.levels(self.steps)

        def draw(eps: Tensor, params: Tensor) -> Tensor:
            return generator.to_physical(integrate(generator.conditioned_on(params), eps, levels, SOLVER), params)

        known = question.known if question.known is not None else _nothing(generator, len(question))
        scales = generator.card.provenance.scales or dict.fromkeys(NORMS, 1.0)
        params = question.params_NP.to(generator.device)
        task = PosedTask(
            generator.pde, generator.grid, draw, known.on(generator.device), params, scales, self.physics, self.prior
        )
        eps = question.eps_NCYX.to(generator.device).flatten(1)
        middle = eps.new_zeros(len(eps), len(generator.pde.varying))
        begin = torch.cat([eps, middle], dim=1)

        def start(counters: Tensor) -> Start:
            return Start(begin[counters.to(begin.device) // MOST])

        search = Search(self.iterations, batch=len(question), physics=self.physics)
        minima, _ = find_minima(task, 1, search, start)
        return answer_samples(generator, best_answers(task, minima, search.batch))


def _nothing(generator: Generator, count: int) -> Observation:
    """Return an observation in which nothing is known."""
    channels = len(generator.channels)
    values = torch.zeros(count, channels, *generator.grid.shape, dtype=torch.float32)
    sigma = torch.ones(count, channels, dtype=torch.float32)
    return Observation(
        values, torch.zeros_like(values, dtype=torch.bool), sigma, torch.zeros_like(sigma, dtype=torch.bool)
    )
