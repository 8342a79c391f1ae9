"""Learns the start network of a student (start.py) from the student's own samples, of which there are as many as one wants.

For noise eps and what is known of its field d(eps), at random points or as in a forward or inverse problem, the network G is
to name noise whose field is near:

    minimise   mean |d(G(known)) - d(eps)|^2  +  WEIGHT mean G(known)^2

The second term is the prior of the search. Known values have some noise. Knows no files and no ranks.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pidscale import seeds
from pidscale.caller import sheltered
from pidscale.generator.arguments import Progress, as_amount, as_int
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.tasks.start import StartCard, StartNetwork, build_start, description, guess
from pidscale.pde.base import solution_mask

STREAM = "start"
WEIGHT = 0.02  # of the prior
FEWEST, MOST = 0.005, 0.2  # share of the points that is known, drawn uniformly in its logarithm
WHOLE = 0.1  # share of forward problems among the samples, and that of inverse problems
NOISE = 0.1  # largest noise of known values, in standard deviations of a channel
WARMUP = 50  # steps
AVERAGE = 0.995  # decay of the average of the weights
HELD_OUT = 256  # samples for the error on the card


@dataclass(frozen=True)
class Learning:
    """How a start network is learnt. A value out of range raises a UserError.

    Attributes:
        steps: Training steps.
        batch: Samples of a step.
        rate: Largest learning rate of AdamW; it falls to 0 as a cosine.
        seed: Seed of samples and weights.
        progress: Called after every step; None for no report.
    """

    steps: int = 1200
    batch: int = 32
    rate: float = 2e-3
    seed: int = 0
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("seed", 0)):
            as_int(name, getattr(self, name), least)
        as_amount("rate", self.rate)


@dataclass(frozen=True)
class _Lesson:
    """Samples of a student, and what is known of them: fields in units of the model."""

    x_BCYX: Tensor
    seen_BCYX: Tensor
    known_BCYX: Tensor
    params_BP: Tensor
    given_BP: Tensor


@sheltered
def learn_start(student: OneStepGenerator, learning: Learning | None = None) -> StartNetwork:
    """Learn the start network of a student. The result depends on the student and the settings only.

    A setting out of range raises a UserError.

    Args:
        student: The student; searches start at its network's own fields, whatever its head.
        learning: Settings; None for the defaults.

    Returns:
        The network, on the student's device.
    """
    learning = learning or Learning()
    plain = student.with_head(0)
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(learning.seed)
        network = build_start(description(student)).to(student.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning.rate, betas=(0.9, 0.99), weight_decay=0.0)
    average = copy.deepcopy(network).requires_grad_(False)
    for step in range(learning.steps):
        lesson = _lesson(plain, learning.seed, range(step * learning.batch, (step + 1) * learning.batch))
        eps = guess(plain, network, lesson.seen_BCYX, lesson.known_BCYX, lesson.given_BP)
        away = (_fields(plain, eps, lesson.params_BP) - lesson.x_BCYX).square().mean()
        loss = away + WEIGHT * eps.square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning.rate * _pace(step, learning.steps)
        optimiser.step()
        decay = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        if learning.progress is not None:
            learning.progress(step + 1, learning.steps, f"distance {float(away.detach()):.4g}")
    error = _error(plain, average.eval(), learning)
    seconds = time.perf_counter() - began
    card = StartCard(student.card.weights_sha256, description(student), learning.steps, seconds, error)
    return StartNetwork(card, average)


def _pace(step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step."""
    return min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _fields(student: OneStepGenerator, eps_BCYX: Tensor, params_BP: Tensor) -> Tensor:
    """Return the fields of noise in units of the model, differentiable."""
    return student.normaliser.encode(student.differentiable(eps_BCYX, params_BP))


def _lesson(student: OneStepGenerator, seed: int, counters: range) -> _Lesson:
    """Draw samples and what is known of them; sample i depends on seed and i only."""
    pde, grid = student.pde, student.grid
    eps = student.eps(counters, seed, f"{STREAM}/eps")
    params = student.params(counters, seed, STREAM)
    with torch.no_grad():
        x = _fields(student, eps, params)
    numbers = torch.tensor(list(counters))
    uniform = seeds.uniform(seed, f"{STREAM}/task", numbers, 3 + len(pde.varying))
    share = FEWEST * (MOST / FEWEST) ** uniform[:, 1]
    height, width = grid.shape
    points = seeds.uniform(seed, f"{STREAM}/points", numbers, height * width).reshape(-1, 1, height, width)
    solution = solution_mask(pde, grid)
    known = (points < share.reshape(-1, 1, 1, 1)).expand(-1, len(pde.channels), -1, -1).clone()
    known[uniform[:, 0] < WHOLE] = ~solution
    known[uniform[:, 0] > 1 - WHOLE] = solution
    known = known.to(x.device)
    sigma = (NOISE * student.noise.sigma_data * uniform[:, 2].square()).to(x).reshape(-1, 1, 1, 1)
    noise = student.eps(counters, seed, f"{STREAM}/noise")
    given = torch.where(uniform[:, 3:] < 0.5, params, math.nan)
    return _Lesson(x, x + sigma * noise, known, params, given)


@torch.no_grad()
def _error(student: OneStepGenerator, network: nn.Module, learning: Learning) -> float:
    """Return the relative error of a network's fields on samples that it has not learnt from, where they are not known."""
    first = learning.steps * learning.batch
    away = total = 0.0
    for start in range(first, first + HELD_OUT, learning.batch):
        lesson = _lesson(student, learning.seed, range(start, min(start + learning.batch, first + HELD_OUT)))
        eps = guess(student, network, lesson.seen_BCYX, lesson.known_BCYX, lesson.given_BP)
        found = _fields(student, eps, lesson.params_BP)
        hidden = ~lesson.known_BCYX
        away += float(((found - lesson.x_BCYX) * hidden).square().sum())
        total += float((lesson.x_BCYX * hidden).square().sum())
    return math.sqrt(away / total)
