"""Sine, cosine and Fourier modes of a field: derivatives, products, and the dual norm. Knows no equations and no ranks.

A transform is taken along the rows at hand, then along all rows of the columns at hand, for which the window exchanges rows
for columns once. Dual norms are shares: those of all processes that share a field add up.

The squared dual (H^-1) norm of a residual R is the sum over modes with mu_k > 0 of |R_k|^2 / mu_k, where mu_k are the
eigenvalues of -lap_h. It weighs the error of a field about as the error of the solution, where the l2 norm weighs white noise
by 1 / h^2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pidscale.caller import kept
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window


@kept(32)
def _sine_matrix(n: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return the orthonormal sine transform DST-I of n interior nodes, [n, n]."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    matrix = torch.sin(math.pi / (n + 1) * k[:, None] * k[None, :]) * math.sqrt(2.0 / (n + 1))
    return matrix.to(dtype=dtype, device=device)


@kept(32)
def _sine_eigenvalues(n: int, spacing: float, dtype: torch.dtype, device: str) -> Tensor:
    """Return the eigenvalues of -d2/dx2 for the modes of `_sine_matrix`, [n]."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    return ((2.0 / spacing * torch.sin(math.pi / (2 * (n + 1)) * k)) ** 2).to(dtype=dtype, device=device)


def dual_square_dirichlet(field_ByX: Tensor, window: Window) -> Tensor:
    """Return the squared dual norm of fields on interior nodes, divided by the number of nodes.

    The modes are those of -lap_h with zero Dirichlet ends (DST-I), which has no zero mode.

    Args:
        field_ByX: Field at interior nodes [B, y, X - 2], the rows at hand.
        window: Window of the grid with its edges.

    Returns:
        Share of this window, [B].
    """
    height, width = (points - 2 for points in window.grid.shape)
    dtype = field_ByX.dtype
    device = str(field_ByX.device)
    spacing = window.grid.spacing
    lines = window.to_columns(field_ByX @ _sine_matrix(width, dtype, device), lost=1)
    mu = _sine_eigenvalues(height, spacing[0], dtype, device)[:, None]
    mu = mu + _sine_eigenvalues(width, spacing[1], dtype, device)[None, window.columns(width)]
    return ((_sine_matrix(height, dtype, device) @ lines).square() / mu).flatten(1).sum(dim=1) / (height * width)


def solve_dirichlet(right_ByX: Tensor, window: Window, shift: float = 0.0) -> Tensor:
    """Return the solution of lap_h u + shift u = right, exact, with u = 0 on the edge.

    Args:
        right_ByX: Right-hand side at interior nodes [B, y, X - 2], the rows at hand.
        window: Window of the grid with its edges.
        shift: Factor of u, no eigenvalue of -lap_h.

    Returns:
        Solution at the same nodes.
    """
    height, width = (points - 2 for points in window.grid.shape)
    dtype = right_ByX.dtype
    device = str(right_ByX.device)
    spacing = window.grid.spacing
    along_y = _sine_matrix(height, dtype, device)
    along_x = _sine_matrix(width, dtype, device)
    mu = _sine_eigenvalues(height, spacing[0], dtype, device)[:, None]
    mu = mu + _sine_eigenvalues(width, spacing[1], dtype, device)[None, window.columns(width)]
    modes = along_y @ window.to_columns(right_ByX @ along_x, lost=1)
    return window.to_rows(along_y @ (modes / (shift - mu)), width, lost=1) @ along_x


@kept(32)
def dual_square_of_one(grid: Grid) -> float:
    """Return `dual_square_dirichlet` of the constant 1, from the products of its sine modes along y and x."""
    height, width = (points - 2 for points in grid.shape)
    along = [_sine_matrix(n, torch.float64, "cpu").sum(dim=1).square() for n in (height, width)]
    mu = [_sine_eigenvalues(n, h, torch.float64, "cpu") for n, h in zip((height, width), grid.spacing, strict=True)]
    modes = along[0][:, None] * along[1][None, :] / (mu[0][:, None] + mu[1][None, :])
    return float(modes.sum()) / (height * width)


def dual_square_dirichlet_line(field_BX: Tensor, spacing: float) -> Tensor:
    """Return the squared dual norm of lines with zero Dirichlet ends, divided by the number of nodes.

    Args:
        field_BX: Lines at interior nodes [B, X - 2].
        spacing: Distance of neighbouring nodes.

    Returns:
        Squared norms [B].
    """
    points = field_BX.shape[-1]
    dtype = field_BX.dtype
    device = str(field_BX.device)
    mu = _sine_eigenvalues(points, spacing, dtype, device)
    return ((field_BX @ _sine_matrix(points, dtype, device)).square() / mu).mean(dim=1)


def sine_waves(lines_X: Tensor) -> Tensor:
    """Return the orthonormal sine transform of lines with zero Dirichlet ends [..., X - 2]; it is its own inverse."""
    return lines_X @ _sine_matrix(lines_X.shape[-1], lines_X.dtype, str(lines_X.device))


def sine_eigenvalues(window: Window, like: Tensor) -> Tensor:
    """Return the eigenvalues of -d2/dx2 for the sine waves of the columns at hand, as `like` is in dtype and device."""
    width = window.grid.shape[1] - 2
    return _sine_eigenvalues(width, window.grid.spacing[1], like.dtype, str(like.device))[window.columns(width)]


@kept(32)
def _cosine_matrix(n: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return the orthonormal cosine transform DCT-II of n cells, [n, n]."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2.0 / n)
    matrix[0] *= math.sqrt(0.5)
    return matrix.to(dtype=dtype, device=device)


@kept(32)
def _eigenvalues(
    kind: str, shape: tuple[int, int], spacing: tuple[float, float], dtype: torch.dtype, device: str
) -> Tensor:
    """Return the eigenvalues mu of -lap_h for the modes of a zero-flux or a periodic field, [Y, X or X // 2 + 1]."""
    if kind == "zero_flux":
        angles = [math.pi / (2 * n) * torch.arange(n, dtype=torch.float64) for n in shape]
    else:
        angles = [math.pi * torch.fft.fftfreq(shape[0], dtype=torch.float64)]
        angles += [math.pi * torch.fft.rfftfreq(shape[1], dtype=torch.float64)]
    along_y, along_x = ((2.0 / h * angle.sin()) ** 2 for angle, h in zip(angles, spacing, strict=True))
    return (along_y[:, None] + along_x[None, :]).to(dtype=dtype, device=device)


@kept(32)
def _inverse_eigenvalues(
    kind: str, shape: tuple[int, int], spacing: tuple[float, float], dtype: torch.dtype, device: str
) -> Tensor:
    """Return 1 / mu of the modes of a zero-flux or a periodic field, [Y, X or X // 2 + 1], 0 for the zero mode."""
    mu = _eigenvalues(kind, shape, spacing, torch.float64, "cpu")
    inverse = torch.where(mu > 0, 1.0 / mu.clamp_min(1e-300), 0.0)
    if kind == "periodic":  # columns that stand for two, of both signs
        inverse[:, 1 : (shape[1] + 1) // 2] *= 2.0
    return inverse.to(dtype=dtype, device=device)


def cosine_waves(window: Window, field_yX: Tensor) -> Tensor:
    """Return the orthonormal cosine transform of a field on cells, all waves along y of the columns at hand [..., Y, k]."""
    height, width = window.grid.shape
    dtype = field_yX.dtype
    device = str(field_yX.device)
    lines = window.to_columns(field_yX @ _cosine_matrix(width, dtype, device).T)
    return _cosine_matrix(height, dtype, device) @ lines


def field_of_cosines(window: Window, modes_Yk: Tensor) -> Tensor:
    """Return the field of a spectrum, the rows at hand [..., y, X]: the inverse of `cosine_waves`."""
    height, width = window.grid.shape
    dtype = modes_Yk.dtype
    device = str(modes_Yk.device)
    lines = window.to_rows(_cosine_matrix(height, dtype, device).T @ modes_Yk, width)
    return lines @ _cosine_matrix(width, dtype, device)


def zero_flux_eigenvalues(window: Window, like: Tensor) -> Tensor:
    """Return the eigenvalues of -lap_h for the modes of `cosine_waves`, [Y, k], in the dtype and on the device of `like`."""
    mu = _eigenvalues("zero_flux", window.grid.shape, window.grid.spacing, like.dtype, str(like.device))
    return mu[:, window.columns(window.grid.shape[1])]


def dual_square_zero_flux(field_ByX: Tensor, window: Window) -> Tensor:
    """Return the squared dual norm of fields on cells with zero flux at the edges, divided by the number of cells.

    The zero mode, which has no dual norm, is left out.

    Args:
        field_ByX: Field at cell centres, the rows at hand.
        window: Their window.

    Returns:
        Share of this window, [B].
    """
    height, width = window.grid.shape
    dtype = field_ByX.dtype
    device = str(field_ByX.device)
    modes = cosine_waves(window, field_ByX)
    inverse = _inverse_eigenvalues("zero_flux", (height, width), window.grid.spacing, dtype, device)
    return (modes.square() * inverse[:, window.columns(width)]).flatten(1).sum(dim=1) / (height * width)


def dual_square_periodic(field_ByX: Tensor, window: Window) -> Tensor:
    """Return the squared dual norm of periodic fields, divided by the number of points; the zero mode is left out.

    Args:
        field_ByX: Field, the rows at hand.
        window: Their window.

    Returns:
        Share of this window, [B].
    """
    height, width = window.grid.shape
    power = waves(window, field_ByX).abs().square()
    inverse = _inverse_eigenvalues("periodic", (height, width), window.grid.spacing, power.dtype, str(power.device))
    return (power * inverse[:, window.columns(width // 2 + 1)]).flatten(1).sum(dim=1)


def dual_square_periodic_line(field_BX: Tensor, spacing: float) -> Tensor:
    """Return the squared dual norm of periodic lines, divided by the number of points; the zero mode is left out.

    Args:
        field_BX: Lines.
        spacing: Distance of neighbouring points.

    Returns:
        Squared norms [B].
    """
    points = field_BX.shape[-1]
    power = torch.fft.rfft(field_BX, norm="forward").abs().square()
    inverse = _inverse_eigenvalues("periodic", (1, points), (1.0, spacing), power.dtype, str(power.device))
    return (power * inverse[0]).sum(dim=1)


def waves(window: Window, field_yX: Tensor, columns: int | None = None) -> Tensor:
    """Return the real Fourier transform (norm "forward") of a periodic field.

    Args:
        window: Window of the field.
        field_yX: Field, the rows at hand [..., y, X].
        columns: Number of waves along x that are kept; None keeps all X // 2 + 1.

    Returns:
        All waves along y of the columns at hand [..., Y, k].
    """
    return torch.fft.fft(
        window.to_columns(torch.fft.rfft(field_yX, norm="forward")[..., :columns]), dim=-2, norm="forward"
    )


def field_of(window: Window, spectrum_Yk: Tensor, columns: int | None = None) -> Tensor:
    """Return the field of a spectrum, the inverse of `waves`.

    Args:
        window: Window of the field.
        spectrum_Yk: All waves along y of the columns at hand [..., Y, k].
        columns: Number of waves along x; None stands for X // 2 + 1.

    Returns:
        Field, the rows at hand [..., y, X].
    """
    width = window.grid.shape[1]
    lines = window.to_rows(torch.fft.ifft(spectrum_Yk, dim=-2, norm="forward"), columns or width // 2 + 1)
    return torch.fft.irfft(lines, n=width, norm="forward")


def inverse_laplacian(window: Window, field: Tensor) -> Tensor:
    """Return an approximate inverse of -lap_h: exact on nodes, and but for the smallest waves on cells and periodic grids.

    Waves whose eigenvalue is 0 are divided by the smallest other one. On a strip it acts along each line.

    Args:
        window: Window of whole fields.
        field: Fields [..., Y, X]; values on the edge of nodes are ignored, and are 0 in the result.

    Returns:
        Fields of the same shape.
    """
    grid = window.grid
    if grid.kind == "node":
        flat = field.flatten(0, -3)[:, 1:-1, 1:-1]
        return functional.pad(-solve_dirichlet(flat, window), (1, 1, 1, 1)).reshape(field.shape)
    if grid.kind == "cell":
        mu = zero_flux_eigenvalues(window, field)
        return field_of_cosines(window, cosine_waves(window, field) / _above_zero(mu))
    if grid.kind == "periodic":
        ky, kx = wave_numbers(window, field)
        return field_of(window, waves(window, field) / _above_zero(ky**2 + kx**2))
    if grid.boundary == "periodic":
        k = line_wave_numbers(grid.shape[1], grid.extent[1], field)
        return torch.fft.irfft(torch.fft.rfft(field) / _above_zero(k**2), n=grid.shape[1])
    return functional.pad(sine_waves(sine_waves(field[..., 1:-1]) / sine_eigenvalues(window, field)), (1, 1))


def _above_zero(mu: Tensor) -> Tensor:
    """Return eigenvalues with the smallest positive one in place of 0."""
    return torch.where(mu > 0, mu, mu[mu > 0].min())


@kept(32)
def _wave_numbers(
    shape: tuple[int, int], extent: tuple[float, float], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor]:
    """Return angular wave numbers ky [Y, 1] and kx [1, X // 2 + 1] of the whole grid."""
    ky = 2 * math.pi / extent[0] * torch.fft.fftfreq(shape[0], 1.0 / shape[0], dtype=torch.float64)
    kx = 2 * math.pi / extent[1] * torch.fft.rfftfreq(shape[1], 1.0 / shape[1], dtype=torch.float64)
    return ky[:, None].to(dtype=dtype, device=device), kx[None, :].to(dtype=dtype, device=device)


def wave_numbers(window: Window, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return angular wave numbers ky [Y, 1] and kx [1, k] of the spectrum of `waves`.

    Args:
        window: Window of the field.
        like: Tensor whose dtype and device the result has.

    Returns:
        ky and kx.
    """
    ky, kx = _wave_numbers(window.grid.shape, window.grid.extent, like.dtype, str(like.device))
    return ky, kx[:, window.columns(kx.shape[1])]


def signed_wave_numbers(window: Window, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return `wave_numbers` with 0 for the highest wave of an even grid, which has no sign and thus no direction.

    Args:
        window: Window of the field.
        like: Tensor whose dtype and device the result has.

    Returns:
        ky [Y, 1] and kx [1, k].
    """
    height, width = window.grid.shape
    ky, kx = _wave_numbers(window.grid.shape, window.grid.extent, like.dtype, str(like.device))
    ky = ky.clone()
    kx = kx.clone()
    if height % 2 == 0:
        ky[height // 2] = 0.0
    if width % 2 == 0:
        kx[:, width // 2] = 0.0
    return ky, kx[:, window.columns(kx.shape[1])]


def line_wave_numbers(points: int, extent: float, like: Tensor) -> Tensor:
    """Return angular wave numbers [X // 2 + 1] of periodic lines.

    Args:
        points: Number of points X.
        extent: Length of a line.
        like: Tensor whose dtype and device the result has.

    Returns:
        Wave numbers.
    """
    return _wave_numbers((1, points), (1.0, extent), like.dtype, str(like.device))[1][0]


def resample(spectrum: Tensor, points: int, wider: int, dim: int, real: bool) -> Tensor:
    """Return the spectrum (norm "forward") of the same function on a grid with more or fewer points along one dim.

    The highest wave of an even grid, which has no sign, is left out.

    Args:
        spectrum: Spectrum on a grid of `points`.
        points: Number of points along the dim.
        wider: Number of points of the result.
        dim: The dim.
        real: Whether it is the dim of a real transform, which has no waves of negative sign.

    Returns:
        Spectrum on a grid of `wider` points.
    """
    low = min((points - 1) // 2, (wider - 1) // 2)
    kept = [spectrum.narrow(dim, 0, low + 1)]
    size = list(spectrum.shape)
    size[dim] = wider // 2 - low if real else wider - 2 * low - 1
    kept.append(spectrum.new_zeros(size))
    if low > 0 and not real:
        kept.append(spectrum.narrow(dim, spectrum.shape[dim] - low, low))
    return torch.cat(kept, dim=dim)
