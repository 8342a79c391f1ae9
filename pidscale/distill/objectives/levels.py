"""Random draws that objectives share: neighbouring noise levels of a grid, and noisy endpoints. Knows no ranks."""

from __future__ import annotations

from torch import Tensor

from pidscale import seeds
from pidscale.diffusion.noise import Noise, karras_levels
from pidscale.distill.endpoints.batch import Batch
from pidscale.ops.window import Window


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
