"""The denoising loss that a teacher is trained with. Knows no ranks, files or equations."""

from __future__ import annotations

from torch import Tensor

from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.noise import Noise


def denoising_errors(
    denoiser: Denoiser,
    noise: Noise,
    x_BCYX: Tensor,
    sigma_B: Tensor,
    eps_BCYX: Tensor,
    points: int | None = None,
) -> Tensor:
    """Return the weighted squared error of each sample, averaged over its points (Karras et al. 2022, eq. 8).

    Args:
        denoiser: The denoiser to be trained.
        noise: The schedule, whose `weight` weighs the squared errors.
        x_BCYX: Clean fields [B, C, Y, X] in units of the model.
        sigma_B: The noise level of each sample, [B].
        eps_BCYX: Standard normal noise [B, C, Y, X].
        points: The number of values of a whole sample, where `x_BCYX` holds only some of its rows. The result is then the
            share of these rows.

    Returns:
        The error of each sample, [B].
    """
    denoised = denoiser(x_BCYX + sigma_B.reshape(-1, 1, 1, 1) * eps_BCYX, sigma_B)
    squares = (denoised - x_BCYX).square().flatten(1).sum(dim=1)
    return noise.weight(sigma_B) * squares / (points or x_BCYX[0].numel())
