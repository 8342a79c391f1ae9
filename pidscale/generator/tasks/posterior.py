"""Many fields that agree with noisy values, and how far they lie apart: posterior samples of a student by optimisation.

    minimise over z   |M (d(eps) - x' - sigma xi)|^2 / (2 sigma^2)  +  |z - zeta|^2 / 2        xi, zeta standard normal

once for each sample, beginning at zeta: the noise of the observation and the centre of the law are drawn anew each time.
Where d is linear the minima are exact draws of the posterior; where it is not, they are close to draws as far as d bends
little within a posterior's width. Sources: randomised maximum likelihood (Oliver, He and Reynolds, 1996);
randomise-then-optimise (Bardsley et al., SIAM J. Sci. Comput. 36, 2014), whose weights for a nonlinear d are left out.
Knows no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.caller import exactly
from pidscale.generator.arguments import as_int
from pidscale.generator.generator import OneCall
from pidscale.generator.tasks.energy import MOST, Search, measured, normals, posed, searched
from pidscale.generator.tasks.observations import Observation

LEVEL = 0.9  # of the pointwise interval


@dataclass(frozen=True)
class Posterior:
    """k samples for each of n observations, on the CPU.

    samples: channel or parameter to [n, k, Y, X] or [n, k], physical, what is known not pasted in. mean, spread (standard
    deviation), low, high (ends of the pointwise 90 % interval): the same without k. mismatch [n, k] and residual, each [n,
    k], as in `Answer`. calls: evaluations, int [n].
    """

    samples: dict[str, Tensor]
    mean: dict[str, Tensor]
    spread: dict[str, Tensor]
    low: dict[str, Tensor]
    high: dict[str, Tensor]
    mismatch: Tensor
    residual: dict[str, Tensor]
    calls: Tensor


def posterior(
    generator: OneCall, observation: Observation, count: int, params: Mapping[str, Any] | None, search: Search
) -> Posterior:
    """`count` samples for each observation, 2 or more; sample k depends on (seed, observation, k) alone.

    search.physics adds the residual to what is minimised; it is 0 unless asked for, since the student has learned the
    equation and a draw has no noise of its own for it. search.starts is not used. Raises UserError.
    """
    as_int("count", count, 2, MOST)
    task = posed(generator, observation, params, search.physics)

    def begin(counters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        zeta = normals(task, search.seed, "posterior", counters)
        return zeta, zeta, seeds.normal(search.seed, "posterior/xi", counters, task.shape, device=zeta.device)

    found, owners = searched(task, count, search, begin)
    fields, told, apart, residual = measured(task, found.x_BD, owners, search.batch)
    n = len(observation)
    samples = {channel.name: fields[:, c].unflatten(0, (n, count)) for c, channel in enumerate(task.pde.channels)}
    samples |= {name: column.unflatten(0, (n, count)) for name, column in zip(task.pde.varying, told.T, strict=True)}
    ends = {name: interval(values) for name, values in samples.items()}
    return Posterior(
        samples,
        {name: values.mean(dim=1) for name, values in samples.items()},
        {name: values.std(dim=1) for name, values in samples.items()},
        {name: low for name, (low, _) in ends.items()},
        {name: high for name, (_, high) in ends.items()},
        apart.unflatten(0, (n, count)),
        {name: values.unflatten(0, (n, count)) for name, values in residual.items()},
        found.calls_B.reshape(n, count).sum(dim=1),
    )


@exactly
def interval(samples_NK: Tensor, level: float = LEVEL) -> tuple[Tensor, Tensor]:
    """The ends [N, ...] of the central interval of samples [N, K, ...].

    Quantile p lies at order statistic p (K + 1), between two of them by a straight line: so a truth drawn like the samples
    falls inside with probability `level`. With fewer than 2 / (1 - level) - 1 samples (19 for 90 %) the ends are the least
    and the greatest, and it falls inside less often: (K - 1) / (K + 1).
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
    """The share of true values [N, ...] inside the central interval of samples [N, K, ...]: `level` if all is right."""
    low, high = interval(samples_NK, level)
    return float(((low <= truth_N) & (truth_N <= high)).double().mean())


@exactly
def crps(samples_NK: Tensor, truth_N: Tensor) -> float:
    """Continuous ranked probability score, mean over true values [N, ...], in their unit: 0 is best, lower is better.

    E|X - y| - E|X - X'| / 2 of samples [N, K, ...], without the bias of a small K (Ferro, Q. J. R. Meteorol. Soc. 140,
    2014). A single guess scores its mean absolute error.
    """
    samples, truth = samples_NK.double(), truth_N.double()
    count = samples.shape[1]
    apart = (samples - truth[:, None]).abs().mean(dim=1)
    ranks = (2 * torch.arange(count, dtype=torch.float64) - count + 1).reshape(1, -1, *[1] * (samples.ndim - 2))
    # the sum of all |x_i - x_j| from the order statistics
    pairs = 2 * (samples.sort(dim=1).values * ranks).sum(dim=1) / (count * max(1, count - 1))
    return float((apart - pairs / 2).mean())
