"""Kept Fourier modes of a field that is split by rows, by partial transforms of the rows at hand and one sum.

The sum is over the kept modes alone, so that what travels does not depend on the resolution. Knows no physics, no models.

Shapes: x_BCyX this rank's rows, spectrum_BCMK complex with M modes along y (0 to m - 1, then -m to -1) and K along x.
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
    """Matrices to modes [X, 2 K] (real parts, then imaginary ones) and back [2 K, X], orthonormal."""
    turns = torch.arange(width)[:, None] * torch.arange(columns)[None, :] % width  # whole numbers: no angle is rounded
    angle = 2 * math.pi / width * turns.double()
    there = torch.cat([angle.cos(), -angle.sin()], dim=1) / math.sqrt(width)
    twice = torch.full((columns,), 2.0, dtype=torch.float64)  # a mode stands for its conjugate too
    twice[0] = 1.0
    if width % 2 == 0 and columns == width // 2 + 1:
        twice[-1] = 1.0
    back = (there * twice.repeat(2)).T
    return there.to(dtype=dtype, device=device), back.to(dtype=dtype, device=device)


@kept(64)
def _along_y(height: int, start: int, stop: int, modes: int, dtype: torch.dtype, device: str) -> Tensor:
    """exp(-2 pi i k y / Y) / sqrt(Y), [2 m, y], of the rows start to stop."""
    k = torch.cat([torch.arange(modes), torch.arange(-modes, 0)])
    angle = -2 * math.pi / height * (k[:, None] * torch.arange(start, stop)[None, :] % height).double()
    wave = torch.polar(torch.full_like(angle, 1 / math.sqrt(height)), angle)
    return wave.to(dtype=torch.complex128 if dtype == torch.float64 else torch.complex64, device=device)


def kept_modes(x_BCyX: Tensor, rows: slice, height: int, modes: tuple[int, int], space: Space) -> Tensor:
    """The spectrum [B, C, 2 m, K] of a whole field (norm "ortho") from this rank's rows. One all-reduce of it.

    modes: (m, K), m <= Y / 2 and K <= X / 2 + 1.
    """
    kind, device = x_BCyX.dtype, str(x_BCyX.device)
    m, columns = modes
    there, _ = _along_x(x_BCyX.shape[-1], columns, kind, device)
    real, imaginary = (x_BCyX @ there).split(columns, dim=-1)
    wave = _along_y(height, rows.start, rows.stop, m, kind, device)
    return total(wave @ torch.complex(real.contiguous(), imaginary.contiguous()), space, "modes")


def from_modes(spectrum_BCMK: Tensor, rows: slice, height: int, width: int) -> Tensor:
    """This rank's rows [B, C, y, X] of the real field whose kept modes these are, all others zero. Nothing is exchanged."""
    m, columns = spectrum_BCMK.shape[-2] // 2, spectrum_BCMK.shape[-1]
    kind, device = spectrum_BCMK.real.dtype, str(spectrum_BCMK.device)
    wave = _along_y(height, rows.start, rows.stop, m, kind, device)
    lines = wave.conj().T @ spectrum_BCMK
    _, back = _along_x(width, columns, kind, device)
    return torch.cat([lines.real, lines.imag], dim=-1) @ back
