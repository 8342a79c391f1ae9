"""The low Fourier modes of a field that is split by rows: each rank transforms its own rows, and one sum completes them.

The sum holds only the kept modes, so that its bytes do not depend on the resolution. Knows no physics and no models.

Shapes: x_BCyX this rank's rows, spectrum_BCMK complex with M = 2 m modes along y (0 to m - 1, then -m to -1) and K along x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pidscale.caller import kept
from pidscale.parallel.mesh import Space
from pidscale.parallel.reduce import total


@kept(64)
def _along_x(width: int, columns: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Return orthonormal matrices to the modes along x, [X, 2 K] (real parts, then imaginary parts), and back, [2 K, X]."""
    # integers, so that no angle is rounded
    turns = torch.arange(width)[:, None] * torch.arange(columns)[None, :] % width
    angle = 2 * math.pi / width * turns.double()
    forward = torch.cat([angle.cos(), -angle.sin()], dim=1) / math.sqrt(width)
    weight = torch.full((columns,), 2.0, dtype=torch.float64)  # a mode of a real field stands for its conjugate too
    weight[0] = 1.0
    if width % 2 == 0 and columns == width // 2 + 1:
        weight[-1] = 1.0
    back = (forward * weight.repeat(2)).T
    return forward.to(dtype=dtype, device=device), back.to(dtype=dtype, device=device)


@kept(64)
def _along_y(height: int, start: int, stop: int, modes: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return exp(-2 pi i k y / Y) / sqrt(Y), [2 m, y], for the rows from start to stop."""
    k = torch.cat([torch.arange(modes), torch.arange(-modes, 0)])
    angle = -2 * math.pi / height * (k[:, None] * torch.arange(start, stop)[None, :] % height).double()
    wave = torch.polar(torch.full_like(angle, 1 / math.sqrt(height)), angle)
    return wave.to(dtype=torch.complex128 if dtype == torch.float64 else torch.complex64, device=device)


def kept_modes(x_BCyX: Tensor, rows: slice, height: int, modes: tuple[int, int], space: Space) -> Tensor:
    """Return the low modes of a field of which each rank holds some rows.

    One all-reduce of the result, and one for its gradient.

    Args:
        x_BCyX: This rank's rows [B, C, y, X].
        rows: Which rows of the field these are.
        height: The rows Y of the field.
        modes: m and K, where m <= Y / 2 and K <= X / 2 + 1.
        space: The space group that shares the field.

    Returns:
        The modes [B, C, 2 m, K] of the orthonormal transform (norm="ortho"), complex, on every rank.
    """
    dtype = x_BCyX.dtype
    device = str(x_BCyX.device)
    m, columns = modes
    forward, _ = _along_x(x_BCyX.shape[-1], columns, dtype, device)
    real, imaginary = (x_BCyX @ forward).split(columns, dim=-1)
    wave = _along_y(height, rows.start, rows.stop, m, dtype, device)
    return total(wave @ torch.complex(real.contiguous(), imaginary.contiguous()), space, "modes")


def from_modes(spectrum_BCMK: Tensor, rows: slice, height: int, width: int) -> Tensor:
    """Return this rank's rows of the real field that has these low modes and no others. No messages.

    Args:
        spectrum_BCMK: The modes [B, C, 2 m, K] that `kept_modes` returns, complex.
        rows: The rows of this rank.
        height: The rows Y of the field.
        width: The columns X of the field.

    Returns:
        The rows [B, C, y, X].
    """
    m = spectrum_BCMK.shape[-2] // 2
    columns = spectrum_BCMK.shape[-1]
    dtype = spectrum_BCMK.real.dtype
    device = str(spectrum_BCMK.device)
    wave = _along_y(height, rows.start, rows.stop, m, dtype, device)
    lines = wave.conj().T @ spectrum_BCMK
    _, back = _along_x(width, columns, dtype, device)
    return torch.cat([lines.real, lines.imag], dim=-1) @ back
