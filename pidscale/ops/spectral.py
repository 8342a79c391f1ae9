"""Sine, cosine and Fourier modes of a field: derivatives, products, and the dual norm. Knows no equations and no ranks.

A transform is taken along the rows at hand, then, of the columns at hand, along all rows: a window brings what is missing.
Dual norms are shares: those of all holders of a field add up.

The dual (H^-1) norm of a residual R is sum over modes mu > 0 of |R_k|^2 / mu_k, mu the eigenvalues of -lap_h: it weighs
an error about as the error of the solution, where the l2 norm weighs white noise by 1 / h^2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pidscale.caller import kept
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window


@kept(32)
def _sine_matrix(n: int, dtype: torch.dtype, device: str) -> Tensor:
    k = torch.arange(1, n + 1, dtype=torch.float64)
    matrix = torch.sin(math.pi / (n + 1) * k[:, None] * k[None, :]) * math.sqrt(2.0 / (n + 1))
    return matrix.to(dtype=dtype, device=device)


@kept(32)
def _sine_eigenvalues(n: int, spacing: float, dtype: torch.dtype, device: str) -> Tensor:
    k = torch.arange(1, n + 1, dtype=torch.float64)
    return ((2.0 / spacing * torch.sin(math.pi / (2 * (n + 1)) * k)) ** 2).to(dtype=dtype, device=device)


def dual_square_dirichlet(field_ByX: Tensor, window: Window) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of interior nodes [B, y, X - 2] of a window's grid.

    The modes are those of -lap_h with zero Dirichlet ends (DST-I), which has no zero mode.
    """
    height, width = (points - 2 for points in window.grid.shape)
    kind, device = field_ByX.dtype, str(field_ByX.device)
    mine, spacing = window.columns(width), window.grid.spacing
    lines = window.to_columns(field_ByX @ _sine_matrix(width, kind, device), lost=1)
    mu = _sine_eigenvalues(height, spacing[0], kind, device)[:, None]
    mu = mu + _sine_eigenvalues(width, spacing[1], kind, device)[None, mine]
    return ((_sine_matrix(height, kind, device) @ lines).square() / mu).flatten(1).sum(dim=1) / (height * width)


@kept(32)
def dual_square_of_one(grid: Grid) -> float:
    """What `dual_square_dirichlet` gives for the constant 1, from the product of its sine modes along y and x."""
    height, width = (points - 2 for points in grid.shape)
    along = [_sine_matrix(n, torch.float64, "cpu").sum(dim=1).square() for n in (height, width)]
    mu = [_sine_eigenvalues(n, h, torch.float64, "cpu") for n, h in zip((height, width), grid.spacing, strict=True)]
    modes = along[0][:, None] * along[1][None, :] / (mu[0][:, None] + mu[1][None, :])
    return float(modes.sum()) / (height * width)


def dual_square_dirichlet_line(field_BX: Tensor, spacing: float) -> Tensor:
    """The same of lines with zero Dirichlet ends, [B] from interior nodes [B, X - 2]."""
    points, kind, device = field_BX.shape[-1], field_BX.dtype, str(field_BX.device)
    mu = _sine_eigenvalues(points, spacing, kind, device)
    return ((field_BX @ _sine_matrix(points, kind, device)).square() / mu).mean(dim=1)


@kept(32)
def _cosine_matrix(n: int, dtype: torch.dtype, device: str) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2.0 / n)
    matrix[0] *= math.sqrt(0.5)
    return matrix.to(dtype=dtype, device=device)


@kept(32)
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


def dual_square_zero_flux(field_ByX: Tensor, window: Window) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of cells with zero flux at their ends.

    The zero mode, which has no dual norm, is left out.
    """
    height, width = window.grid.shape
    kind, device = field_ByX.dtype, str(field_ByX.device)
    lines = window.to_columns(field_ByX @ _cosine_matrix(width, kind, device).T)
    modes = _cosine_matrix(height, kind, device) @ lines
    inverse = _inverse_eigenvalues("zero_flux", (height, width), window.grid.spacing, kind, device)
    return (modes.square() * inverse[:, window.columns(width)]).flatten(1).sum(dim=1) / (height * width)


def dual_square_periodic(field_ByX: Tensor, window: Window) -> Tensor:
    """Squared dual norm per sample divided by the number of points, [B], of a periodic field; the zero mode is left out."""
    height, width = window.grid.shape
    power = waves(window, field_ByX).abs().square()
    inverse = _inverse_eigenvalues("periodic", (height, width), window.grid.spacing, power.dtype, str(power.device))
    return (power * inverse[:, window.columns(width // 2 + 1)]).flatten(1).sum(dim=1)


def dual_square_periodic_line(field_BX: Tensor, spacing: float) -> Tensor:
    """The same of periodic lines, [B] from [B, X]."""
    points = field_BX.shape[-1]
    power = torch.fft.rfft(field_BX, norm="forward").abs().square()
    inverse = _inverse_eigenvalues("periodic", (1, points), (1.0, spacing), power.dtype, str(power.device))
    return (power * inverse[0]).sum(dim=1)


def waves(window: Window, field_yX: Tensor, columns: int | None = None) -> Tensor:
    """The real transform (norm "forward") of a periodic field, [..., Y, k]: all waves along y of the columns at hand.

    columns: how many waves along x are kept, X // 2 + 1 if None.
    """
    return torch.fft.fft(
        window.to_columns(torch.fft.rfft(field_yX, norm="forward")[..., :columns]), dim=-2, norm="forward"
    )


def field_of(window: Window, spectrum_Yk: Tensor, columns: int | None = None) -> Tensor:
    """The field [..., y, X] of waves as `waves` gives them, back. columns: how many there are along x."""
    width = window.grid.shape[1]
    lines = window.to_rows(torch.fft.ifft(spectrum_Yk, dim=-2, norm="forward"), columns or width // 2 + 1)
    return torch.fft.irfft(lines, n=width, norm="forward")


@kept(32)
def _wave_numbers(
    shape: tuple[int, int], extent: tuple[float, float], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor]:
    ky = 2 * math.pi / extent[0] * torch.fft.fftfreq(shape[0], 1.0 / shape[0], dtype=torch.float64)
    kx = 2 * math.pi / extent[1] * torch.fft.rfftfreq(shape[1], 1.0 / shape[1], dtype=torch.float64)
    return ky[:, None].to(dtype=dtype, device=device), kx[None, :].to(dtype=dtype, device=device)


def wave_numbers(window: Window, like: Tensor) -> tuple[Tensor, Tensor]:
    """Angular wave numbers (ky [Y, 1], kx [1, k]) of what `waves` gives, as `like` is typed."""
    ky, kx = _wave_numbers(window.grid.shape, window.grid.extent, like.dtype, str(like.device))
    return ky, kx[:, window.columns(kx.shape[1])]


def signed_wave_numbers(window: Window, like: Tensor) -> tuple[Tensor, Tensor]:
    """The same without the highest wave of an even grid, which has no direction: 0 in its place."""
    height, width = window.grid.shape
    ky, kx = _wave_numbers(window.grid.shape, window.grid.extent, like.dtype, str(like.device))
    ky, kx = ky.clone(), kx.clone()
    if height % 2 == 0:
        ky[height // 2] = 0.0
    if width % 2 == 0:
        kx[:, width // 2] = 0.0
    return ky, kx[:, window.columns(kx.shape[1])]


def line_wave_numbers(points: int, extent: float, like: Tensor) -> Tensor:
    """Angular wave numbers [X // 2 + 1] of periodic lines, as `like` is typed."""
    return _wave_numbers((1, points), (1.0, extent), like.dtype, str(like.device))[1][0]


def resample(spectrum: Tensor, points: int, wider: int, dim: int, real: bool) -> Tensor:
    """Waves of a grid of `points` along one dim as those of one of `wider`, or cut back to one of fewer (norm "forward").

    The highest wave of an even grid, which has no sign, is left out. real: the dim of a real transform, with no waves of
    negative sign.
    """
    low = min((points - 1) // 2, (wider - 1) // 2)
    kept = [spectrum.narrow(dim, 0, low + 1)]
    size = list(spectrum.shape)
    size[dim] = wider // 2 - low if real else wider - 2 * low - 1
    kept.append(spectrum.new_zeros(size))
    if low > 0 and not real:
        kept.append(spectrum.narrow(dim, spectrum.shape[dim] - low, low))
    return torch.cat(kept, dim=dim)
