"""Residuals in time of frames at even intervals. Knows no equations and no ranks.

Shapes: u_BF... frames of a state, rate_BF... its rate of change at each frame; results have one frame fewer: one an interval.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_FRAMES = 4  # that the interval means below draw on


def interval_means(rate_BF: Tensor, begins: bool = True, ends: bool = True) -> Tensor:
    """The mean of a rate over each interval between frames, fourth order, [B, F - 1, ...].

    The cubic through four frames, integrated over its middle interval, and over an outer one at both ends. begins, ends:
    whether frames begin or end there; where they do not, the outer interval is left out.
    """
    r = rate_BF
    inner = (13 * (r[:, 1:-2] + r[:, 2:-1]) - r[:, :-3] - r[:, 3:]) / 24
    first = (9 * r[:, 0] + 19 * r[:, 1] - 5 * r[:, 2] + r[:, 3]) / 24
    last = (9 * r[:, -1] + 19 * r[:, -2] - 5 * r[:, -3] + r[:, -4]) / 24
    return torch.cat([first[:, None]] * begins + [inner] + [last[:, None]] * ends, dim=1)


def one_step_residual(u_BF: Tensor, rate_BF: Tensor, interval: float, begins: bool = True, ends: bool = True) -> Tensor:
    """(u[n + 1] - u[n]) / interval minus the mean rate over the interval, of those that `interval_means` gives."""
    change = (u_BF[:, 1:] - u_BF[:, :-1]) / interval
    means = interval_means(rate_BF, begins, ends)
    return change[:, 1 - begins : change.shape[1] - 1 + ends] - means
