"""Runge-Kutta steps of order 4 with an exact factor for the stiff linear part. Must not know `ops`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np


def integrate(
    state: np.ndarray, decay: np.ndarray, rate: Callable[[np.ndarray], np.ndarray], times: np.ndarray, longest: float
) -> Iterator[np.ndarray]:
    """Yield the states of s_t = -decay s + rate(s) at all times after the first.

    Args:
        state: State at the first time.
        decay: Decay rate of each mode, in the shape of the state.
        rate: Rate of a state apart from its decay.
        times: Times [T].
        longest: Longest time step.

    Yields:
        State at each time after the first, T - 1 in all.
    """
    s = state
    for start, stop in itertools.pairwise(times):
        count = max(1, int(np.ceil((stop - start) / longest - 1e-9)))
        step = (stop - start) / count
        half = np.exp(-decay * step / 2)
        for _ in range(count):
            a = rate(s)
            b = rate(half * (s + step / 2 * a))
            c = rate(half * s + step / 2 * b)
            d = rate(half * (half * s + step * c))
            s = half * (half * (s + step / 6 * a) + step / 3 * (b + c)) + step / 6 * d
        yield s
