"""Sine transforms of interior nodes and the dual norm. Knows no equations and no ranks.

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
