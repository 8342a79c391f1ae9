"""Preconditioning around a raw network (Karras et al. 2022, table 1). Knows no ranks, no files and no equations.

The sum runs in float32 with autocast off; `bf16` covers the inside of the network only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pidscale.precision import float32_island

Factors = tuple[Tensor, Tensor, Tensor]


def _edm(sigma: Tensor, sigma_data: float) -> Factors:
    """The network's input and target have unit size at every level."""
    total = sigma.square() + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data * total.rsqrt(), total.rsqrt()


def _velocity(sigma: Tensor, sigma_data: float) -> Factors:
    """The network sees x_t = (1 - t) x0 + t eps and predicts eps - x0: D = x_t - t F, with t = sigma / (1 + sigma)."""
    share = 1 / (1 + sigma)
    return share, -sigma * share, share


PREDICTIONS: dict[str, Callable[[Tensor, float], Factors]] = {"edm": _edm, "velocity": _velocity}


class Denoiser(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise): the mean of clean fields given a noisy one and its parameters.

    precision: `fp32` or `bf16` (autocast inside the network; parameters stay float32). prediction: what F stands for, by its
    c_skip, c_out and c_in; c_noise = ln(sigma) / 4 always.
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
        """What it computes in: float64 where its weights are, else float32."""
        kinds = {p.dtype for p in self.network.parameters()}
        return torch.float64 if torch.float64 in kinds else torch.float32

    def forward(
        self, x_BCYX: Tensor, sigma_B: Tensor, condition_BP: Tensor | None = None, told_B: Tensor | None = None
    ) -> Tensor:
        """x [B, C, Y, X] with noise of standard deviation sigma [B], parameters [B, P] -> [B, C, Y, X] in `dtype`.

        told: levels [B] that the network is told in place of those of x, where it maps one level's noise to another level.
        """
        device = x_BCYX.device.type
        with float32_island(x_BCYX.device):
            x = x_BCYX.to(self.dtype)
            sigma = sigma_B.to(x.dtype).reshape(-1, 1, 1, 1).expand(x.shape[0], 1, 1, 1)
            c_skip, c_out, c_in = self.factors(sigma, self.sigma_data)
            c_noise = (sigma.flatten() if told_B is None else told_B.to(x.dtype)).log() / 4
        with torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            raw = self.network(c_in * x, c_noise, condition_BP)
        with float32_island(x_BCYX.device):
            return c_skip * x + c_out * raw.to(x.dtype)


def conditioned(denoiser: Callable[..., Tensor], condition_BP: Tensor) -> Callable[..., Tensor]:
    """The denoiser of samples with these parameters [B, P], as a function of fields and noise levels alone."""
    return lambda x_BCYX, sigma_B, *told_B: denoiser(x_BCYX, sigma_B, condition_BP, *told_B)
