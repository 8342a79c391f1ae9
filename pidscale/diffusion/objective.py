"""The denoising objective. Knows no ranks, files or equations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pidscale.diffusion.noise import Noise


def denoising_errors(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    noise: Noise,
    x_BCYX: Tensor,
    sigma_B: Tensor,
    eps_BCYX: Tensor,
    points: int | None = None,
) -> Tensor:
    """Weighted squared error of each sample, [B], mean over its points (Karras et al. 2022, eq. 8).

    x: clean normalised fields; sigma: level of each sample; eps: standard normal fields. points: values of a whole sample,
    where these are some rows of it: the result is then the share of these rows.
    """
    denoised = denoiser(x_BCYX + sigma_B.reshape(-1, 1, 1, 1) * eps_BCYX, sigma_B)
    squares = (denoised - x_BCYX).square().flatten(1).sum(dim=1)
    return noise.weight(sigma_B) * squares / (points or x_BCYX[0].numel())
