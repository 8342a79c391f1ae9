"""Gaussian random fields as a function of a counter, the same field at every resolution. Knows no equations and no files."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pidscale import seeds

COVARIANCE = {"alpha": (1.01, 20.0), "tau": (1e-3, 1e3)}  # ranges in which fields are finite in float64
MODES = 64  # cosine modes a side that have random coefficients; a coarse grid keeps the low modes of the same draw
WAVES = 32  # waves of a periodic field that have random coefficients: wave numbers below this, of both signs


@lru_cache(maxsize=16)
def _cosines(points: int, modes: int, kind: str) -> np.ndarray:
    """Return the cosine modes at the points of the unit interval, [points, modes], each with mean square 1."""
    x = (np.arange(points) + 0.5) / points if kind == "cell" else np.linspace(0.0, 1.0, points)
    matrix = np.cos(np.pi * np.arange(modes)[None, :] * x[:, None]) * np.sqrt(2.0)
    matrix[:, 0] = 1.0
    return matrix


@lru_cache(maxsize=16)
def _amplitude(modes: int, alpha: float, tau: float) -> np.ndarray:
    """Return the standard deviation of each mode's coefficient [modes, modes]; the mean is left out."""
    k = np.arange(modes)
    amplitude = tau ** (alpha - 1) * (np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + tau**2) ** (-alpha / 2)
    amplitude[0, 0] = 0.0
    return amplitude


def cosine_field(
    seed: int, stream: str, counter: int, shape: tuple[int, int], alpha: float = 2.0, tau: float = 3.0
) -> np.ndarray:
    """Draw a zero-mean field on the nodes of the unit square with zero normal derivative at the edges.

    The covariance (-lap + tau^2)^-alpha is that of the coefficients of Li et al. (Fourier Neural Operator, 2021), evaluated
    as a sum of cosines at the nodes instead of an inverse transform at cell centres.

    Args:
        seed: Seed of the run or set.
        stream: Name of the random stream.
        counter: Number of the field in the stream.
        shape: Points (Y, X).
        alpha: Exponent of the covariance.
        tau: Inverse length of the covariance.

    Returns:
        Field, float64 [Y, X].
    """
    return _cosine_sum(seed, stream, counter, shape, alpha, tau, "node")


def _cosine_sum(
    seed: int, stream: str, counter: int, shape: tuple[int, int], alpha: float, tau: float, kind: str
) -> np.ndarray:
    """Return the field of `cosine_field` at nodes or cell centres, by kind."""
    noise = seeds.normal(seed, stream, [counter], (1, MODES, MODES))[0, 0].numpy().astype(np.float64)
    modes_y, modes_x = (min(MODES, points) for points in shape)
    spectrum = (_amplitude(MODES, alpha, tau) * noise)[:modes_y, :modes_x]
    return _cosines(shape[0], modes_y, kind) @ spectrum @ _cosines(shape[1], modes_x, kind).T


@lru_cache(maxsize=16)
def cosine_rms(alpha: float, tau: float) -> float:
    """Return the root mean square of `cosine_field` over samples and domain, from its covariance alone."""
    return float(np.sqrt(np.sum(_amplitude(MODES, alpha, tau) ** 2)))


@lru_cache(maxsize=16)
def _periodic_amplitude(alpha: float, tau: float) -> np.ndarray:
    """Return the standard deviation of each wave's coefficient, [2 WAVES - 1, 2 WAVES - 1]; the mean is left out."""
    k = np.arange(-WAVES + 1, WAVES)
    amplitude = tau ** (alpha - 1) * (4 * np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + tau**2) ** (-alpha / 2)
    amplitude[WAVES - 1, WAVES - 1] = 0.0
    return amplitude


def periodic_field(
    seed: int, stream: str, counter: int, shape: tuple[int, int], alpha: float, tau: float
) -> np.ndarray:
    """Draw a zero-mean periodic field on the unit square with expected mean square 1.

    The covariance (-lap + tau^2)^-alpha, up to the scale, is that of the vorticity of Li et al. (Fourier Neural Operator,
    2021). A coarse grid keeps the low waves of the same draw, but not the highest wave of an even grid, which has no sign.

    Args:
        seed: Seed of the run or set.
        stream: Name of the random stream.
        counter: Number of the field in the stream.
        shape: Points (Y, X).
        alpha: Exponent of the covariance.
        tau: Inverse length of the covariance.

    Returns:
        Field, float64 [Y, X].
    """
    number = 2 * WAVES - 1
    noise = seeds.normal(seed, stream, [counter], (2, number, number))[0].numpy().astype(np.float64)
    amplitude = _periodic_amplitude(alpha, tau)
    waves = amplitude * (noise[0] + 1j * noise[1]) / np.sqrt(np.sum(amplitude**2))
    spectrum = np.zeros(shape, dtype=np.complex128)
    top, right = (min(WAVES, (n + 1) // 2) for n in shape)
    rows = np.arange(-top + 1, top)
    columns = np.arange(-right + 1, right)
    spectrum[np.ix_(rows % shape[0], columns % shape[1])] = waves[np.ix_(rows + WAVES - 1, columns + WAVES - 1)]
    return np.real(np.fft.ifft2(spectrum, norm="forward"))


def periodic_line(seed: int, stream: str, counter: int, points: int, alpha: float, tau: float) -> np.ndarray:
    """Draw a zero-mean periodic function on the unit interval with expected mean square 1.

    Its covariance is (-d2/dx2 + tau^2)^-alpha up to the scale. A coarse grid keeps the low waves of the same draw.

    Args:
        seed: Seed of the run or set.
        stream: Name of the random stream.
        counter: Number of the function in the stream.
        points: Number of points X.
        alpha: Exponent of the covariance.
        tau: Inverse length of the covariance.

    Returns:
        Function, float64 [X].
    """
    noise = seeds.normal(seed, stream, [counter], (2, 1, WAVES))[0, :, 0, 1:].numpy().astype(np.float64)
    k = np.arange(1, WAVES)
    amplitude = (4 * np.pi**2 * k**2 + tau**2) ** (-alpha / 2)
    waves = amplitude * (noise[0] - 1j * noise[1]) / np.sqrt(np.sum(amplitude**2))
    spectrum = np.zeros(points // 2 + 1, dtype=np.complex128)
    top = min(WAVES, (points + 1) // 2)
    spectrum[1:top] = waves[: top - 1]
    return np.fft.irfft(spectrum / 2, points, norm="forward")


def cosine_cells(seed: int, stream: str, counter: int, shape: tuple[int, int], alpha: float, tau: float) -> np.ndarray:
    """Draw a field with the covariance of `cosine_field` at cell centres.

    Args:
        seed: Seed of the random streams.
        stream: Name of the stream.
        counter: Number of the sample in the stream.
        shape: Points (Y, X).
        alpha: Decay of the spectrum.
        tau: Inverse length scale.

    Returns:
        The field, float64 [Y, X], scaled to root mean square 1.
    """
    return _cosine_sum(seed, stream, counter, shape, alpha, tau, "cell") / cosine_rms(alpha, tau)
