"""Preconditioning around a raw network (Karras et al. 2022, table 1). Knows no ranks, no files and no equations.

The preconditioning runs in float32 with autocast off; `bf16` and `fp16` apply inside the network only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pidscale.precision import float32_island

Factors = tuple[Tensor, Tensor, Tensor]


def _edm(sigma: Tensor, sigma_data: float) -> Factors:
    """Return c_skip, c_out and c_in for which the network's input and target have unit variance at every level."""
    total = sigma.square() + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data * total.rsqrt(), total.rsqrt()


def _velocity(sigma: Tensor, sigma_data: float) -> Factors:
    """Return the factors of a velocity: F sees x_t = (1 - t) x0 + t eps, predicts eps - x0, and D = x_t - t F.

    The time is t = sigma / (1 + sigma).
    """
    share = 1 / (1 + sigma)
    return share, -sigma * share, share


PREDICTIONS: dict[str, Callable[[Tensor, float], Factors]] = {"edm": _edm, "velocity": _velocity}


HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of 16 bits that the inner layers may compute in, by the name of the precision. float16 is for inference alone: small
gradients are 0 in it."""


class PreconditionedNetwork(nn.Module):
    """A denoiser around a raw network F: D(x, sigma) = c_skip x + c_out F(c_in x, c_noise), with c_noise = ln(sigma) / 4.

    A trained one estimates the mean of the clean fields, given a noisy field and the condition.

    Args:
        network: The raw network F(x, c_noise, condition).
        sigma_data: The standard deviation of the data in units of the model.
        precision: `fp32`, or a key of `HALVES` for autocast inside the network; parameters stay float32.
        prediction: What F predicts, a key of `PREDICTIONS`; it decides c_skip, c_out and c_in.
    """

    def __init__(
        self, network: nn.Module, sigma_data: float = 0.5, precision: str = "fp32", prediction: str = "edm"
    ) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data
        self.precision = precision
        self.factors = PREDICTIONS[prediction]

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in: float64 if its weights are float64, else float32."""
        kinds = {p.dtype for p in self.network.parameters()}
        return torch.float64 if torch.float64 in kinds else torch.float32

    def forward(
        self,
        x_BCYX: Tensor,
        sigma_B: Tensor,
        condition_BP: Tensor | None = None,
        network_level_B: Tensor | None = None,
    ) -> Tensor:
        """Return the denoised fields.

        Args:
            x_BCYX: Noisy fields [B, C, Y, X] in units of the model.
            sigma_B: The noise level of each field, [B], or of all of them, [1].
            condition_BP: The scaled PDE parameters of each sample, [B, P].
            network_level_B: The levels [B] that the network is conditioned on, where they are not those of its input, as in
                a student that maps the noise of one level to fields of another.

        Returns:
            The denoised fields [B, C, Y, X] in `dtype`.
        """
        device = x_BCYX.device.type
        with float32_island(x_BCYX.device):
            x = x_BCYX.to(self.dtype)
            sigma = sigma_B.to(x.dtype).reshape(-1, 1, 1, 1).expand(x.shape[0], 1, 1, 1)
            c_skip, c_out, c_in = self.factors(sigma, self.sigma_data)
            c_noise = (sigma.flatten() if network_level_B is None else network_level_B.to(x.dtype)).log() / 4
        half = HALVES.get(self.precision)
        with torch.autocast(device_type=device, dtype=half or torch.bfloat16, enabled=half is not None):
            raw = self.network(c_in * x, c_noise, condition_BP)
        with float32_island(x_BCYX.device):
            return c_skip * x + c_out * raw.to(x.dtype)
