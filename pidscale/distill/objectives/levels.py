"""What objectives on a grid of noise levels share: random draws, noisy endpoints, two steps as one. Knows no ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import UserError, setting
from pidscale.diffusion.noise import Noise, karras_levels
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings
from pidscale.ops.window import Window


@dataclass(frozen=True)
class HalvedSettings(DistanceSettings):
    """Settings of an objective in which one step of a grid of noise levels stands for two.

    Attributes:
        solver_steps: Number N of steps of the grid, a power of two.
    """

    solver_steps: int = setting(16, at_least=2, at_most=2**14)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver_steps & (self.solver_steps - 1):
            raise UserError(
                f"distill.objective.solver_steps={self.solver_steps}: expected a power of two, since steps are halved"
            )


def places(count: int, seed: int, stream: str, fresh: Tensor) -> Tensor:
    """Draw an index for each sample, uniformly from 0 to `count` - 1.

    Args:
        count: Number of indices.
        seed: Random seed.
        stream: Name of the random stream.
        fresh: Counters of the samples.

    Returns:
        The indices, int64 [B].
    """
    uniform = seeds.uniform(seed, stream, fresh, 1)[:, 0]
    return (uniform * count).long().clamp_max(count - 1)


def neighbours(noise: Noise, count: int, seed: int, stream: str, fresh: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a noise level for each sample, uniformly from all levels of a Karras grid except the last.

    Args:
        noise: The schedule, whose lowest and highest level are the ends of the grid.
        count: Number of levels of the grid.
        seed: Random seed.
        stream: Name of the random stream.
        fresh: Counters of the samples.

    Returns:
        The levels and the next lower levels of the grid, float64 [B] each.
    """
    grid = karras_levels(noise.sigma_min, noise.sigma_max, count)
    place = places(count - 1, seed, stream, fresh)
    return grid[place], grid[place + 1]


def noisy_endpoints(batch: Batch, sigma_B: Tensor, window: Window, seed: int, stream: str) -> Tensor:
    """Add noise of these levels to the endpoints of a batch; the noise is drawn again at every step.

    Args:
        batch: Samples with endpoints.
        sigma_B: Noise levels.
        window: Rows of this rank.
        seed: Random seed.
        stream: Name of the random stream.

    Returns:
        Noisy endpoints [B, C, y, X].
    """
    assert batch.target_BCYX is not None
    shape = (batch.target_BCYX.shape[1], *window.grid.shape)
    eps = seeds.normal(seed, stream, batch.fresh, shape, window.rows, device=batch.target_BCYX.device)
    return batch.target_BCYX + sigma_B.reshape(-1, 1, 1, 1) * eps


def states(batch: Batch, sigma_B: Tensor, window: Window, top: float, seed: int, stream: str) -> Tensor:
    """Return states of the flow: noisy endpoints, and noise alone at the highest level, where a student starts.

    Args:
        batch: Samples with endpoints.
        sigma_B: Noise levels.
        window: Rows of this rank.
        top: The highest level.
        seed: Random seed.
        stream: Name of the random stream.

    Returns:
        States [B, C, y, X]; at the highest level that of the noise of the sample.
    """
    noisy = noisy_endpoints(batch, sigma_B, window, seed, stream)
    at_top = sigma_B.reshape(-1, 1, 1, 1) >= top * (1 - 1e-6)  # the first level of a grid may be rounded
    return torch.where(at_top, top * batch.eps_BCYX, noisy)


def two_steps(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], x_BCYX: Tensor, levels: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Return the denoised fields with which one step from a level a to c ends where two end, by way of b; two calls.

    A step from a to b with the denoised fields D leads from x to (b / a) x + (1 - b / a) D.

    Args:
        denoise: The denoised fields for a step from x at one level to another, given x, the first and the second level.
        x_BCYX: States at level a.
        levels: Levels a > b > c of each sample, [B] each.

    Returns:
        Fields [B, C, Y, X]: w D(x_a) + (1 - w) D(x_b) with w = (c / b) (1 - b / a) / (1 - c / a).
    """
    a, b, c = (level.reshape(-1, 1, 1, 1) for level in levels)
    first = denoise(x_BCYX, levels[0], levels[1])
    second = denoise(b / a * x_BCYX + (1 - b / a) * first, levels[1], levels[2])
    share = c / b * (1 - b / a) / (1 - c / a)
    return share * first + (1 - share) * second
