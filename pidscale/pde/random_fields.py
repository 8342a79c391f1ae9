"""Gaussian random fields from a counter, the same field at every resolution. Knows no equations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pidscale import seeds

LAW = {"alpha": (1.01, 20.0), "tau": (1e-3, 1e3)}  # ranges of a law: fields of finite size that float64 can hold
MODES = 64  # cosine modes a side that carry random numbers; a coarse grid keeps the low ones of the same draw


@lru_cache(maxsize=16)
def _cosines(points: int, modes: int, kind: str) -> np.ndarray:
    x = (np.arange(points) + 0.5) / points if kind == "cell" else np.linspace(0.0, 1.0, points)
    matrix = np.cos(np.pi * np.arange(modes)[None, :] * x[:, None]) * np.sqrt(2.0)
    matrix[:, 0] = 1.0
    return matrix


@lru_cache(maxsize=16)
def _amplitude(modes: int, alpha: float, tau: float) -> np.ndarray:
    k = np.arange(modes)
    amplitude = tau ** (alpha - 1) * (np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + tau**2) ** (-alpha / 2)
    amplitude[0, 0] = 0.0
    return amplitude


def cosine_field(
    seed: int, stream: str, counter: int, shape: tuple[int, int], alpha: float = 2.0, tau: float = 3.0
) -> np.ndarray:
    """A zero-mean field on the nodes of the unit square, float64 [Y, X], zero normal derivative at the edges.

    Covariance (-lap + tau^2)^-alpha (the coefficient law of Li et al., Fourier Neural Operator, 2021), evaluated by
    cosines at the nodes instead of an inverse transform at cell centres.
    """
    return _cosine_sum(seed, stream, counter, shape, alpha, tau, "node")


def _cosine_sum(
    seed: int, stream: str, counter: int, shape: tuple[int, int], alpha: float, tau: float, kind: str
) -> np.ndarray:
    noise = seeds.normal(seed, stream, [counter], (1, MODES, MODES))[0, 0].numpy().astype(np.float64)
    modes_y, modes_x = min(MODES, shape[0]), min(MODES, shape[1])
    spectrum = (_amplitude(MODES, alpha, tau) * noise)[:modes_y, :modes_x]
    return _cosines(shape[0], modes_y, kind) @ spectrum @ _cosines(shape[1], modes_x, kind).T


@lru_cache(maxsize=16)
def cosine_rms(alpha: float, tau: float) -> float:
    """The root mean square of `cosine_field` over samples and domain, from its law alone."""
    return float(np.sqrt(np.sum(_amplitude(MODES, alpha, tau) ** 2)))


WAVES = 32  # waves a side of a periodic field that carry random numbers: numbers below it, of both signs


@lru_cache(maxsize=16)
def _periodic_amplitude(alpha: float, tau: float) -> np.ndarray:
    k = np.arange(-WAVES + 1, WAVES)
    amplitude = tau ** (alpha - 1) * (4 * np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + tau**2) ** (-alpha / 2)
    amplitude[WAVES - 1, WAVES - 1] = 0.0
    return amplitude


def periodic_field(
    seed: int, stream: str, counter: int, shape: tuple[int, int], alpha: float, tau: float
) -> np.ndarray:
    """A zero-mean periodic field on the unit square, float64 [Y, X], root mean square 1 by its law.

    Covariance (-lap + tau^2)^-alpha (the law of Li et al., Fourier Neural Operator, 2021, for vorticity), scaled. A coarse
    grid keeps the low waves of the same draw; the highest wave of an even grid, which has no sign, is left out.
    """
    number = 2 * WAVES - 1
    noise = seeds.normal(seed, stream, [counter], (2, number, number))[0].numpy().astype(np.float64)
    amplitude = _periodic_amplitude(alpha, tau)
    waves = amplitude * (noise[0] + 1j * noise[1]) / np.sqrt(np.sum(amplitude**2))
    spectrum = np.zeros(shape, dtype=np.complex128)
    top, right = (min(WAVES, (n + 1) // 2) for n in shape)
    rows, columns = np.arange(-top + 1, top), np.arange(-right + 1, right)
    spectrum[np.ix_(rows % shape[0], columns % shape[1])] = waves[np.ix_(rows + WAVES - 1, columns + WAVES - 1)]
    return np.real(np.fft.ifft2(spectrum, norm="forward"))


def periodic_line(seed: int, stream: str, counter: int, points: int, alpha: float, tau: float) -> np.ndarray:
    """A zero-mean periodic function on the unit interval, float64 [X], root mean square 1 by its law.

    Covariance (-d2/dx2 + tau^2)^-alpha, scaled; coarse grids keep the low waves of the same draw.
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
    """The law of `cosine_field` at the cell centres, float64 [Y, X], scaled to root mean square 1."""
    return _cosine_sum(seed, stream, counter, shape, alpha, tau, "cell") / cosine_rms(alpha, tau)
