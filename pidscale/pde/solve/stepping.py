"""Runge-Kutta of order 4 after an exact factor for the stiff linear part. May not know `ops`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np


def frames(
    state: np.ndarray, decay: np.ndarray, rate: Callable[[np.ndarray], np.ndarray], times: np.ndarray, longest: float
) -> Iterator[np.ndarray]:
    """States of s_t = -decay s + rate(s) at each of `times` but the first, which is that of `state`.

    decay: of each mode, in the shape of the state. longest: the largest step between two times.
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
