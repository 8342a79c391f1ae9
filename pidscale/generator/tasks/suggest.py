"""Where the next sensors help most: the grid points whose reading lowers the variance of posterior samples most.

A reading with noise sigma at point j lowers the variance at point i by c_ij^2 / (c_jj + sigma^2), where c is the covariance
of the posterior. This is exact for a Gaussian posterior. The covariance is that of posterior samples. A reading updates their
deviations from the mean (Whitaker and Hamill, Mon. Weather Rev. 130, 2002), so that the next sensor is chosen given the one
before. Knows no networks, no files and no ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.caller import exactly
from pidscale.ops.grid import Grid
from pidscale.ops.interpolate import point_coordinates


@dataclass(frozen=True)
class Suggestion:
    """A place for a sensor.

    Attributes:
        channel: Name of the channel that it reads.
        y: Row of the grid point, from 0.
        x: Column of the grid point, from 0.
        gain: Share of the variance that it is expected to remove, of what the sensors before it leave.
        y_coord: Coordinate of the grid point along y, as tables of sensors have it.
        x_coord: Coordinate along x.
    """

    channel: str
    y: int
    x: int
    gain: float
    y_coord: float
    x_coord: float


@exactly
def best_sensors(
    samples_KCYX: Tensor,
    sigma_C: Tensor,
    places_CYX: Tensor,
    targets_C: Tensor,
    channels: Sequence[str],
    grid: Grid,
    count: int,
) -> list[Suggestion]:
    """Choose sensors one after the other, each of them the best one given those before it.

    Args:
        samples_KCYX: Posterior samples of one field, in standard deviations of each channel.
        sigma_C: Standard deviation of the noise of a reading, in the same units.
        places_CYX: Where a sensor may be, bool.
        targets_C: Which channels the variance is that of, bool.
        channels: Names of the channels.
        grid: The grid of the fields.
        count: Number of sensors.

    Returns:
        The sensors in the order of choice; fewer than `count`, where the variance or the places run out.
    """
    shape = samples_KCYX.shape[1:]
    deviations = (samples_KCYX - samples_KCYX.mean(dim=0)).double().flatten(1)
    degrees = len(deviations) - 1
    noise = sigma_C.double()[:, None, None].expand(shape).flatten().square()
    free = places_CYX.flatten().clone()
    coordinates = [point_coordinates(grid, dim) for dim in (0, 1)]
    found: list[Suggestion] = []
    while len(found) < count and free.any():
        variance = deviations.square().sum(dim=0) / degrees
        target = deviations.unflatten(1, shape)[:, targets_C].flatten(1)
        total = float(target.square().sum() / degrees)
        # |c_j|^2 over the targets by way of the samples' products, less what so few samples add by chance
        products = target @ target.T / degrees**2
        squares = ((products @ deviations) * deviations).sum(dim=0)
        squares = (squares - variance * total / degrees) * degrees / (degrees + 1)
        gains = torch.where(free, squares / (variance + noise), -1.0)
        best = int(gains.argmax())
        if not total > 0 or not float(gains[best]) > 0:
            break
        c, y, x = (int(index[0]) for index in torch.unravel_index(torch.tensor([best]), shape))
        place = (float(coordinates[0][y]), float(coordinates[1][x]))
        found.append(Suggestion(channels[c], y, x, float(gains[best]) / total, *place))
        free[best] = False
        deviations = _updated(deviations, best, float(noise[best]))
    return found


def _updated(deviations_KD: Tensor, place: int, noise: float) -> Tensor:
    """Return the deviations of samples after a reading at one place, whose noise has this variance."""
    own = deviations_KD[:, place]
    covariance = own @ deviations_KD / (len(own) - 1)
    variance = float(covariance[place])
    factor = 1 / (1 + (noise / (variance + noise)) ** 0.5)
    return deviations_KD - factor * own[:, None] * covariance / (variance + noise)
