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


def dual_square_dirichlet_line(field_BX: Tensor, spacing: float) -> Tensor:
    """The same of lines with zero Dirichlet ends, [B] from interior nodes [B, X]."""
    points, kind, device = field_BX.shape[-1], field_BX.dtype, str(field_BX.device)
    mu = _sine_eigenvalues(points, spacing, kind, device)
    return ((field_BX @ _sine_matrix(points, kind, device)).square() / mu).mean(dim=1)


@lru_cache(maxsize=32)
def _cosine_matrix(n: int, dtype: torch.dtype, device: str) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2.0 / n)
    matrix[0] *= math.sqrt(0.5)
    return matrix.to(dtype=dtype, device=device)


@lru_cache(maxsize=32)
def _inverse_eigenvalues(
    kind: str, shape: tuple[int, int], spacing: tuple[float, float], dtype: torch.dtype, device: str
) -> Tensor:
    """1 / mu of -lap_h over the modes of a zero-flux or a periodic field [Y, X or X // 2 + 1], 0 for the zero mode."""
    if kind == "zero_flux":
        angles = [math.pi / (2 * n) * torch.arange(n, dtype=torch.float64) for n in shape]
    else:
        angles = [math.pi * torch.fft.fftfreq(shape[0], dtype=torch.float64)]
        angles += [math.pi * torch.fft.rfftfreq(shape[1], dtype=torch.float64)]
    along_y, along_x = ((2.0 / h * angle.sin()) ** 2 for angle, h in zip(angles, spacing, strict=True))
    mu = along_y[:, None] + along_x[None, :]
    inverse = torch.where(mu > 0, 1.0 / mu.clamp_min(1e-300), 0.0)
    if kind == "periodic":  # columns that stand for two, of both signs
        inverse[:, 1 : (shape[1] + 1) // 2] *= 2.0
    return inverse.to(dtype=dtype, device=device)


def dual_square_zero_flux(field_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of cells with zero flux at their ends.

    The zero mode, which has no dual norm, is left out.
    """
    height, width = field_BYX.shape[-2:]
    kind, device = field_BYX.dtype, str(field_BYX.device)
    modes = _cosine_matrix(height, kind, device) @ field_BYX @ _cosine_matrix(width, kind, device).T
    inverse = _inverse_eigenvalues("zero_flux", (height, width), spacing, kind, device)
    return (modes.square() * inverse).flatten(1).mean(dim=1)


def dual_square_periodic(field_BYX: Tensor, spacing: tuple[float, float]) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of a periodic field; the zero mode is left out."""
    height, width = field_BYX.shape[-2:]
    power = torch.fft.rfft2(field_BYX, norm="ortho").abs().square()
    inverse = _inverse_eigenvalues("periodic", (height, width), spacing, power.dtype, str(power.device))
    return (power * inverse).flatten(1).sum(dim=1) / (height * width)


@lru_cache(maxsize=32)
def _wave_numbers(
    shape: tuple[int, int], extent: tuple[float, float], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor]:
    ky = 2 * math.pi / extent[0] * torch.fft.fftfreq(shape[0], 1.0 / shape[0], dtype=torch.float64)
    kx = 2 * math.pi / extent[1] * torch.fft.rfftfreq(shape[1], 1.0 / shape[1], dtype=torch.float64)
    return ky[:, None].to(dtype=dtype, device=device), kx[None, :].to(dtype=dtype, device=device)


def wave_numbers(shape: tuple[int, int], extent: tuple[float, float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Angular wave numbers (ky [Y, 1], kx [1, X // 2 + 1]) of the real transform of a periodic field, as `like` is typed."""
    return _wave_numbers(shape, extent, like.dtype, str(like.device))


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
