"""Protocols of denoisers: their signatures, and a function that binds a condition. Knows no networks.

Shapes: x_BCYX noisy fields in units of the model, sigma_B their noise levels, condition_BP PDE parameters in [-1, 1].
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Denoiser(Protocol):
    """D(x, sigma): estimates the clean fields of noisy ones; solvers and the denoising loss need no more than this."""

    def __call__(self, x_BCYX: Tensor, sigma_B: Tensor, network_level_B: Tensor | None = None, /) -> Tensor:
        """Return the denoised fields.

        Args:
            x_BCYX: Noisy fields [B, C, Y, X] in units of the model.
            sigma_B: The noise level of each field, [B].
            network_level_B: The levels [B] that the network is conditioned on, where they are not those of its input.

        Returns:
            The denoised fields [B, C, Y, X].
        """
        ...


class ConditionalDenoiser(Protocol):
    """D(x, sigma, condition): a network, or an engine around one, that takes the PDE parameters of each sample too."""

    def __call__(
        self,
        x_BCYX: Tensor,
        sigma_B: Tensor,
        condition_BP: Tensor | None = None,
        network_level_B: Tensor | None = None,
        /,
    ) -> Tensor:
        """Return the denoised fields.

        Args:
            x_BCYX: Noisy fields [B, C, Y, X] in units of the model.
            sigma_B: The noise level of each field, [B].
            condition_BP: The scaled PDE parameters of each sample, [B, P]; None for networks without any.
            network_level_B: The levels [B] that the network is conditioned on, where they are not those of its input.

        Returns:
            The denoised fields [B, C, Y, X].
        """
        ...


def conditioned(denoiser: ConditionalDenoiser, condition_BP: Tensor) -> Denoiser:
    """Bind the condition [B, P] of a batch of samples, so that fields and noise levels remain as arguments."""

    def denoise(x_BCYX: Tensor, sigma_B: Tensor, network_level_B: Tensor | None = None, /) -> Tensor:
        if network_level_B is None:
            return denoiser(x_BCYX, sigma_B, condition_BP)
        return denoiser(x_BCYX, sigma_B, condition_BP, network_level_B)

    return denoise
