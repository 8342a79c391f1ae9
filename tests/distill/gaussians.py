"""Gaussian data with its exact linear teacher: what objectives are held against in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from pidscale.diffusion.normaliser import Normaliser
from pidscale.distill.endpoints.batch import Batch
from pidscale.pde.darcy import Darcy

TOP, BOTTOM = 80.0, 0.002
PDE = Darcy()
GRID = PDE.grid(16)
UNITS = Normaliser((7.5, 0.006), (4.5, 0.004))
SPREADS = torch.tensor([0.05, 0.5, 2.0, 8.0], dtype=torch.float64).repeat(4)  # of the modes: the columns of a field


def gaussian(x: Tensor, sigma: Tensor, *_: Tensor) -> Tensor:
    """The exact denoiser of data whose modes are N(0, SPREADS^2)."""
    s = sigma.double().reshape(-1, 1, 1, 1)
    return SPREADS**2 / (SPREADS**2 + s**2) * x


def batch(size: int = 64, step: int = 0) -> Batch:
    """Fields of the law, as float64."""
    draws = torch.Generator().manual_seed(step)
    x0 = SPREADS * torch.randn(size, 2, 16, 16, generator=draws, dtype=torch.float64)
    eps = torch.randn(size, 2, 16, 16, generator=draws, dtype=torch.float64)
    return Batch(step, torch.arange(size) + step * size, eps, torch.zeros(size, 0), torch.zeros(size, 0), x0)
