"""Posterior samples of a student by optimisation: many fields that agree with noisy values, and how much they vary.

    minimise over z   |M (d(eps) - x' - sigma xi)|^2 / (2 sigma^2)  +  |z - zeta|^2 / 2        xi, zeta standard normal

once for each sample, from the start z = zeta, or from that of a start network (start.py). The noise xi of the observation and
the centre zeta of the prior are drawn for each sample. If d is linear, the minima are exact draws of the posterior; otherwise
they are approximate, the better the more nearly linear d is within the width of the posterior. Sources: randomised maximum
likelihood (Oliver, He and Reynolds, 1996); randomise-then-optimise (Bardsley et al., SIAM J. Sci. Comput. 36, 2014), whose
weights for a nonlinear d are omitted. Symbols
as in energy.py. Knows no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import exactly
from pidscale.generator.arguments import as_int
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.tasks.energy import Measured, PosedTask, pose
from pidscale.generator.tasks.field import search_field
from pidscale.generator.tasks.observations import Observation
from pidscale.generator.tasks.search import MOST, Search, Start, find_minima, standard_normals
from pidscale.generator.tasks.start import StartNetwork

LEVEL = 0.9  # probability of the pointwise intervals


@dataclass(frozen=True)
class Posterior:
    """k posterior samples for each of n observations, on the CPU.

    Attributes:
        samples: Channels [n, k, Y, X] in physical units and varying parameters [n, k], by name. They are as the student
            generates them: known values are not inserted.
        mean: Means over the samples, [n, Y, X] or [n], by name.
        spread: Standard deviations over the samples, likewise.
        low: Lower ends of the pointwise 90 % intervals, likewise.
        high: Upper ends, likewise.
        mismatch: Root mean square of (field - known value) / sigma over the known points, [n, k].
        residual: Relative residuals of the samples, each [n, k]: `l2`, `dual`, `boundary`.
        calls: Evaluations (a network call and its gradient) of all samples, int [n].
        field_calls: Evaluations of a second search, over the field itself, of all samples, int [n]; 0 without one.
    """

    samples: dict[str, Tensor] = field(repr=False)
    mean: dict[str, Tensor] = field(repr=False)
    spread: dict[str, Tensor] = field(repr=False)
    low: dict[str, Tensor] = field(repr=False)
    high: dict[str, Tensor] = field(repr=False)
    mismatch: Tensor
    residual: dict[str, Tensor]
    calls: Tensor
    field_calls: Tensor


def posterior(
    generator: OneStepGenerator,
    observation: Observation,
    count: int,
    params: Mapping[str, Any] | None,
    search: Search,
    first: StartNetwork | None = None,
) -> Posterior:
    """Draw posterior samples. Sample k depends only on (seed, number of the observation, k).

    `search.physics` adds the residual to what is minimised. Callers give it as 0 by default: the student has learned the
    equation, and no noise is drawn for the residual. A wrong argument raises a UserError.

    Args:
        generator: The student.
        observation: Known values of n fields.
        count: Number of samples for each observation, 2 or more.
        params: Varying parameters that are known, by name, as in `sample`.
        search: Settings of the search. `search.starts` is not used.
        first: A start network, whose draws the searches start from; None to start from draws of the prior.

    Returns:
        The samples with their mean, standard deviation and intervals.
    """
    as_int("count", count, 2, MOST)
    task = pose(generator, observation, params, search.physics)

    def xi(counters: Tensor) -> Tensor:
        parts = [seeds.normal(search.seed, "posterior/xi", counters, task.shape, device=generator.device)]
        for number, size in enumerate(task.values[1:]):
            stream = f"posterior/xi/{number}"
            parts.append(seeds.normal(search.seed, stream, counters, (1, 1, size), device=generator.device))
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def start(counters: Tensor) -> Start:
        zeta = standard_normals(task, search.seed, "posterior", counters)
        noise = xi(counters)
        if first is None:
            return Start(zeta, zeta, noise)
        owners = (counters // MOST).to(generator.device)
        return Start(first.draws(generator, task, zeta, owners, noise), zeta, noise)

    minima, owners = find_minima(task, count, search, start)
    found = task.measure(minima.x_BD, owners, search.batch)
    field_calls = torch.zeros(len(observation), dtype=torch.long)
    if search.field_steps:
        task, second = search_field(generator, task, minima, found.fields, search, xi)
        found = task.measure(second.x_BD, owners, search.batch)
        field_calls = second.calls_B.reshape(len(observation), count).sum(dim=1)
    calls = minima.calls_B.reshape(len(observation), count).sum(dim=1)
    return _gathered(task, found, count, calls, field_calls)


def _gathered(task: PosedTask, found: Measured, count: int, calls: Tensor, field_calls: Tensor) -> Posterior:
    """Return the fields of `count` samples for each observation, in order, as posterior samples."""
    shape = (len(task.observation), count)
    samples = {channel.name: found.fields[:, c].unflatten(0, shape) for c, channel in enumerate(task.pde.channels)}
    samples |= {p: column.unflatten(0, shape) for p, column in zip(task.pde.varying, found.params.T, strict=True)}
    ends = {name: interval(values) for name, values in samples.items()}
    return Posterior(
        samples=samples,
        mean={name: values.mean(dim=1) for name, values in samples.items()},
        spread={name: values.std(dim=1) for name, values in samples.items()},
        low={name: low for name, (low, _) in ends.items()},
        high={name: high for name, (_, high) in ends.items()},
        mismatch=found.mismatch.unflatten(0, shape),
        residual={name: values.unflatten(0, shape) for name, values in found.residual.items()},
        calls=calls,
        field_calls=field_calls,
    )


@exactly
def interval(samples_NK: Tensor, level: float = LEVEL) -> tuple[Tensor, Tensor]:
    """Return the central interval of samples, so that a truth drawn like them lies inside with probability `level`.

    Quantile p lies at order statistic p (K + 1), with linear interpolation between two of them. With fewer than
    2 / (1 - level) - 1 samples (19 for 90 %) the ends are the least and the greatest sample, and the probability is lower:
    (K - 1) / (K + 1).

    Args:
        samples_NK: Samples [N, K, ...], 2 or more.
        level: Probability of the interval.

    Returns:
        Lower and upper ends, each [N, ...].
    """
    ordered = samples_NK.sort(dim=1).values
    count = samples_NK.shape[1]
    ends = []
    for p in ((1 - level) / 2, (1 + level) / 2):
        place = min(max(p * (count + 1) - 1, 0.0), count - 1.0)
        below = min(int(place), count - 2)
        ends.append(torch.lerp(ordered[:, below], ordered[:, below + 1], place - below))
    return ends[0], ends[1]


@exactly
def coverage(samples_NK: Tensor, truth_N: Tensor, level: float = LEVEL) -> float:
    """Return the fraction of true values inside the central interval of samples, which is `level` for exact posteriors.

    Args:
        samples_NK: Samples [N, K, ...].
        truth_N: True values [N, ...].
        level: Probability of the interval.

    Returns:
        The fraction.
    """
    low, high = interval(samples_NK, level)
    return float(((low <= truth_N) & (truth_N <= high)).double().mean())


@exactly
def crps(samples_NK: Tensor, truth_N: Tensor) -> float:
    """Return the continuous ranked probability score, the mean over true values; lower is better, 0 is perfect.

    E|X - y| - E|X - X'| / 2, without bias for small K (Ferro, Q. J. R. Meteorol. Soc. 140, 2014). The score of one sample is
    its mean absolute error.

    Args:
        samples_NK: Samples [N, K, ...].
        truth_N: True values [N, ...].

    Returns:
        The score, in the unit of the values.
    """
    samples = samples_NK.double()
    truth = truth_N.double()
    count = samples.shape[1]
    error = (samples - truth[:, None]).abs().mean(dim=1)
    ranks = (2 * torch.arange(count, dtype=torch.float64) - count + 1).reshape(1, -1, *[1] * (samples.ndim - 2))
    # the sum of all |x_i - x_j| from the order statistics
    pairs = 2 * (samples.sort(dim=1).values * ranks).sum(dim=1) / (count * max(1, count - 1))
    return float((error - pairs / 2).mean())
