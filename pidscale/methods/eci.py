"""ECI sampling on a flow-matching teacher: extrapolate, correct, interpolate (Cheng et al., ICLR 2025, algorithm 1).

With t from 0 (noise) to 1 (data) and velocity v, a step from t to t' is

    x1 = x_t + (1 - t) v(x_t, t)                extrapolate: the field that the flow leads to
    x1 = known values where they are known      correct
    x_t' = (1 - t') e + t' x1                   interpolate

Here a state of the flow is x_t = t (x1 + sigma e) with sigma = (1 - t) / t, so that x1 is the denoiser's D(x_t / t, sigma).
The last step has t' = 1, so known values hold exactly. The paper uses the noise e drawn at the start (`noise=drawn`). With
`noise=state` each step uses the noise that the state implies, e = (x - x1) / sigma; without known values the method is then
Euler's sampler of the flow. Knows no files and no ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from pidscale.config import UserError
from pidscale.generator.generator import Generator
from pidscale.methods.base import FLOW_TEACHER, SAMPLE, Question, check_given, check_settings
from pidscale.methods.search import TASKS
from pidscale.pde.base import Samples
from pidscale.precision import float32_or_better

NOISES = ("state", "drawn")


@dataclass(frozen=True)
class Eci:
    """Sample a flow teacher with known values imposed at every step. A setting out of range raises a UserError.

    Attributes:
        steps: Number of Euler steps; 200 in the paper.
        mix: Number of times that each step extrapolates and corrects; 1 to 5 in the paper.
        noise: `state` or `drawn` (module docstring).
        resample: Number of steps after which new noise is drawn; 0 for never. Only with `noise=drawn`.
        source: The paper that it follows.
        takes: Kinds of generators that it can ask.
        answers: Kinds of questions that it answers.
    """

    steps: int = 200
    mix: int = 1
    noise: str = "state"
    resample: int = 0
    source: ClassVar[str] = "Cheng et al., Gradient-free generation for hard-constrained systems (ECI), ICLR 2025"
    takes: ClassVar[frozenset[str]] = frozenset({FLOW_TEACHER})
    answers: ClassVar[frozenset[str]] = TASKS | {SAMPLE}

    def __post_init__(self) -> None:
        check_settings(self, steps=1, mix=1, resample=0)
        if self.noise not in NOISES:
            raise UserError(f"method.noise={self.noise!r}: expected one of {', '.join(NOISES)}")
        if self.resample and self.noise != "drawn":
            raise UserError(f"method.resample={self.resample}: new noise is only drawn with method.noise=drawn")

    @torch.no_grad()
    def run(self, generator: Generator, question: Question) -> Samples:
        """Sample each field; known values are exact. A varying parameter that is not given raises a UserError."""
        check_given(self, question)
        network = generator.conditioned_on(question.params_NP)
        levels = generator.noise.levels(self.steps).tolist()
        drawn = float32_or_better(question.eps_NCYX.to(generator.device))
        x = drawn * levels[0]
        clean = x
        for step, (here, there) in enumerate(pairwise(levels)):
            for again in range(self.mix):
                clean = network(x, x.new_full((len(x),), here))
                implied = (x - clean) / here
                clean = self._corrected(generator, question, clean)
                e = implied if self.noise == "state" else self._drawn(generator, question, drawn, step)
                level = there if again == self.mix - 1 else here
                x = clean + level * e
        found = generator.to_physical(clean, question.params_NP)
        return Samples(self._exact(generator, question, found), question.params_NP)

    def _drawn(self, generator: Generator, question: Question, drawn_NCYX: Tensor, step: int) -> Tensor:
        """Return the noise of a step: that of the question, or new noise every `resample` steps."""
        turn = step // self.resample if self.resample else 0
        return drawn_NCYX if turn == 0 else question.noise(generator, f"eci/{turn}")

    def _corrected(self, generator: Generator, question: Question, clean_NCYX: Tensor) -> Tensor:
        """Return the fields with known values inserted, in units of the model."""
        if question.known is None:
            return clean_NCYX
        known = question.known.on(generator.device)
        values = generator.normaliser.encode(known.values_NCYX).to(clean_NCYX.dtype)
        return torch.where(known.known_NCYX, values, clean_NCYX)

    def _exact(self, generator: Generator, question: Question, physical_NCYX: Tensor) -> Tensor:
        """Return the physical fields with known values inserted to the bit, which converting units rounds."""
        if question.known is None:
            return physical_NCYX
        known = question.known.on(generator.device)
        return torch.where(known.known_NCYX, known.values_NCYX.to(physical_NCYX.dtype), physical_NCYX)
