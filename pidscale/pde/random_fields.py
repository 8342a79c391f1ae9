"""Gaussian random fields from a counter, the same field at every resolution. Knows no equations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pidscale import seeds

MODES = 64  # cosine modes a side that carry random numbers; a coarse grid keeps the low ones of the same draw


@lru_cache(maxsize=16)
def _cosines(points: int, modes: int) -> np.ndarray:
    x = np.linspace(0.0, 1.0, points)
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
    noise = seeds.normal(seed, stream, [counter], (1, MODES, MODES))[0, 0].numpy().astype(np.float64)
    modes_y, modes_x = min(MODES, shape[0]), min(MODES, shape[1])
    spectrum = (_amplitude(MODES, alpha, tau) * noise)[:modes_y, :modes_x]
    return _cosines(shape[0], modes_y) @ spectrum @ _cosines(shape[1], modes_x).T


@lru_cache(maxsize=16)
def cosine_rms(alpha: float, tau: float) -> float:
    """The root mean square of `cosine_field` over samples and domain, from its law alone."""
    return float(np.sqrt(np.sum(_amplitude(MODES, alpha, tau) ** 2)))
