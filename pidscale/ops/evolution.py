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
