"""Sine, cosine and Fourier modes of a field: derivatives, products, and the dual norm. Knows no equations and no ranks.

The dual (H^-1) norm of a residual R is sum over modes mu > 0 of |R_k|^2 / mu_k, mu the eigenvalues of -lap_h: it weighs
an error about as the error of the solution, where the l2 norm weighs white noise by 1 / h^2.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def _sine_matrix(n: int, dtype: torch.dtype, device: str) -> Tensor:
    k = torch.arange(1, n + 1, dtype=torch.float64)
    matrix = torch.sin(math.pi / (n + 1) * k[:, None] * k[None, :]) * math.sqrt(2.0 / (n + 1))
    return matrix.to(dtype=dtype, device=device)


@lru_cache(maxsize=32)
def _sine_eigenvalues(n: int, spacing: float, dtype: torch.dtype, device: str) -> Tensor:
    k = torch.arange(1, n + 1, dtype=torch.float64)
    return ((2.0 / spacing * torch.sin(math.pi / (2 * (n + 1)) * k)) ** 2).to(dtype=dtype, device=device)


def sine_transform(field_BYX: Tensor) -> Tensor:
    """The orthonormal sine transform (DST-I, its own inverse) of interior nodes with zero Dirichlet ends, [B, Y, X]."""
    height, width = field_BYX.shape[-2:]
    kind, device = field_BYX.dtype, str(field_BYX.device)
    return _sine_matrix(height, kind, device) @ field_BYX @ _sine_matrix(width, kind, device)


def dual_square_dirichlet(field_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of interior nodes [B, Y, X].

    The modes are those of -lap_h with zero Dirichlet ends, which has no zero mode.
    """
    height, width = field_BYX.shape[-2:]
    kind, device = field_BYX.dtype, str(field_BYX.device)
    mu = _sine_eigenvalues(height, spacing[0], kind, device)[:, None]
    mu = mu + _sine_eigenvalues(width, spacing[1], kind, device)[None, :]
    return (sine_transform(field_BYX).square() / mu).flatten(1).mean(dim=1)


@lru_cache(maxsize=32)
def _cosine_matrix(n: int, dtype: torch.dtype, device: str) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2.0 / n)
    matrix[0] *= math.sqrt(0.5)
    return matrix.to(dtype=dtype, device=device)


def dual_square_zero_flux(field_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of cells with zero flux at their ends.

    The zero mode, which has no dual norm, is left out: `mean_square` is its own measure.
    """
    height, width = field_BYX.shape[-2:]
    kind, device = field_BYX.dtype, str(field_BYX.device)
    modes = _cosine_matrix(height, kind, device) @ field_BYX @ _cosine_matrix(width, kind, device).T
    sizes = [(2.0 / h * torch.sin(math.pi / (2 * n) * torch.arange(n, dtype=torch.float64))) ** 2
             for n, h in ((height, spacing[0]), (width, spacing[1]))]  # fmt: skip
    return _over_eigenvalues(modes.square(), sizes[0][:, None] + sizes[1][None, :], height * width)


def dual_square_periodic(field_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of a periodic field; the zero mode is left out."""
    height, width = field_BYX.shape[-2:]
    power = torch.fft.rfft2(field_BYX, norm="ortho").abs().square()
    twice = torch.full((width // 2 + 1,), 2.0, dtype=power.dtype, device=power.device)  # columns that stand for two
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    ky = torch.fft.fftfreq(height, dtype=torch.float64)
    kx = torch.fft.rfftfreq(width, dtype=torch.float64)
    sizes = [(2.0 / h * torch.sin(math.pi * k)) ** 2 for k, h in ((ky, spacing[0]), (kx, spacing[1]))]
    return _over_eigenvalues(power * twice, sizes[0][:, None] + sizes[1][None, :], height * width)


def _over_eigenvalues(power_BYX: Tensor, mu_YX: Tensor, points: int) -> Tensor:
    inverse = torch.where(mu_YX > 0, 1.0 / mu_YX.clamp_min(1e-300), 0.0).to(power_BYX)
    return (power_BYX * inverse).flatten(1).sum(dim=1) / points


def wave_numbers(shape: tuple[int, int], extent: tuple[float, float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Angular wave numbers (ky [Y, 1], kx [1, X // 2 + 1]) of the real transform of a periodic field, as `like` is typed."""
    ky = 2 * math.pi / extent[0] * torch.fft.fftfreq(shape[0], 1.0 / shape[0], dtype=torch.float64)
    kx = 2 * math.pi / extent[1] * torch.fft.rfftfreq(shape[1], 1.0 / shape[1], dtype=torch.float64)
    return ky[:, None].to(like), kx[None, :].to(like)


def resample(spectrum: Tensor, shape: tuple[int, int], wider: tuple[int, int]) -> Tensor:
    """A real transform of a field of `shape` as that of the same waves on the grid `wider`, or cut back to a smaller one.

    The highest wave of an even grid, which has no sign, is left out. Scaled for the "forward" norm.
    """
    low = [min((a - 1) // 2, (b - 1) // 2) for a, b in zip(shape, wider, strict=True)]
    found = spectrum.new_zeros(*spectrum.shape[:-2], wider[0], wider[1] // 2 + 1)
    found[..., : low[0] + 1, : low[1] + 1] = spectrum[..., : low[0] + 1, : low[1] + 1]
    if low[0] > 0:
        found[..., -low[0] :, : low[1] + 1] = spectrum[..., -low[0] :, : low[1] + 1]
    return found
