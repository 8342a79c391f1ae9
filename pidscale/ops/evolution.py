"""Residuals in time of frames at even intervals. Knows no equations and no ranks.

Shapes: u_BF... frames of a state, rate_BF... its rate of change at each frame; results have one entry for each interval.
"""

from __future__ import annotations

import torch
from torch import Tensor


def interval_means(rate_BF: Tensor, begins: bool = True, ends: bool = True) -> Tensor:
    """Return the mean of a rate over each interval between frames, fourth order.

    The cubic through four frames is integrated over its middle interval, and at both ends over its outer interval too.

    Args:
        rate_BF: Rate at each frame [B, F, ...].
        begins: Whether the first frame is the first of the whole sequence; otherwise its interval is left out.
        ends: Whether the last frame is the last of the whole sequence; otherwise its interval is left out.

    Returns:
        Means [B, F - 1, ...], or fewer where intervals are left out.
    """
    r = rate_BF
    inner = (13 * (r[:, 1:-2] + r[:, 2:-1]) - r[:, :-3] - r[:, 3:]) / 24
    first = (9 * r[:, 0] + 19 * r[:, 1] - 5 * r[:, 2] + r[:, 3]) / 24
    last = (9 * r[:, -1] + 19 * r[:, -2] - 5 * r[:, -3] + r[:, -4]) / 24
    return torch.cat([first[:, None]] * begins + [inner] + [last[:, None]] * ends, dim=1)


def one_step_residual(u_BF: Tensor, rate_BF: Tensor, interval: float, begins: bool = True, ends: bool = True) -> Tensor:
    """Return (u[n + 1] - u[n]) / interval minus the mean rate over the interval.

    Args:
        u_BF: Frames of a state [B, F, ...].
        rate_BF: Rate at each frame [B, F, ...].
        interval: Time between two frames.
        begins: Whether the first frame is the first of the whole sequence; otherwise its interval is left out.
        ends: Whether the last frame is the last of the whole sequence; otherwise its interval is left out.

    Returns:
        Residual of the intervals of `interval_means` [B, F - 1, ...].
    """
    change = (u_BF[:, 1:] - u_BF[:, :-1]) / interval
    means = interval_means(rate_BF, begins, ends)
    return change[:, 1 - begins : change.shape[1] - 1 + ends] - means


def solve_decay(right_BI: Tensor, mass: Tensor, decay: Tensor, interval: float) -> Tensor:
    """Return the states d from d = 0 on with mass (d[n + 1] - d[n]) / interval + decay means(d)[n] = right[n].

    The system of all times is banded and is solved by elimination, once for each wave. Exact.

    Args:
        right_BI: Right-hand side of each interval [B, I, ...], three intervals or more.
        mass: Positive factors, broadcast against a state.
        decay: Factors of 0 or above, broadcast against a state.
        interval: Time between two states.

    Returns:
        States [B, I + 1, ...], the first one 0.
    """
    rows = [
        {place: weight * decay for place, weight in _weights(n, right_BI.shape[1]).items()}
        for n in range(right_BI.shape[1])
    ]
    for n, row in enumerate(rows):
        row[n] = row.get(n, 0.0) - mass / interval
        row[n + 1] = row[n + 1] + mass / interval
    right = list(right_BI.unbind(dim=1))
    for n, row in enumerate(rows):
        for m in range(n + 1, min(n + 4, len(rows))):
            if n + 1 in rows[m]:
                factor = rows[m].pop(n + 1) / row[n + 1]
                for place in (place for place in row if place > n + 1):
                    rows[m][place] = rows[m].get(place, 0.0) - factor * row[place]
                right[m] = right[m] - factor * right[n]
    states: dict[int, Tensor] = {}
    for n in reversed(range(len(rows))):
        above = sum((rows[n][place] * states[place] for place in rows[n] if place > n + 1), 0.0)
        states[n + 1] = (right[n] - above) / rows[n][n + 1]
    return torch.stack([torch.zeros_like(right[0]), *(states[n + 1] for n in range(len(rows)))], dim=1)


def _weights(interval: int, count: int) -> dict[int, float]:
    """Return the weights of states in the mean of `interval_means` over one of `count` intervals."""
    if interval == 0:
        return {0: 9 / 24, 1: 19 / 24, 2: -5 / 24, 3: 1 / 24}
    if interval == count - 1:
        return {count - 3: 1 / 24, count - 2: -5 / 24, count - 1: 19 / 24, count: 9 / 24}
    return {interval - 1: -1 / 24, interval: 13 / 24, interval + 1: 13 / 24, interval + 2: -1 / 24}
