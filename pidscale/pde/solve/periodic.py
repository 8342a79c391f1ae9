"""Waves and vortices on the periodic square, by numpy's complex Fourier transforms.

May not know `ops`: what is solved here and what is measured there must agree by being right.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pidscale.pde.solve.stepping import frames


@lru_cache(maxsize=16)
def _waves(shape: tuple[int, int], extent: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    ky, kx = (2 * np.pi * np.fft.fftfreq(n, length / n) for n, length in zip(shape, extent, strict=True))
    return ky[:, None], kx[None, :]


def standing_waves(
    initial: np.ndarray, speed: float, times: np.ndarray, extent: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """u_tt = speed^2 lap u from rest, float64 [T, Y, X] at `times` from u [Y, X]: exact for every wave."""
    ky, kx = _waves(initial.shape, extent)
    rate = speed * np.hypot(ky, kx)
    return np.real(np.fft.ifft2(np.cos(rate * times[:, None, None]) * np.fft.fft2(np.ascontiguousarray(initial))))


def carried(
    initial: np.ndarray,
    velocity: tuple[float, float],
    diffusivity: float,
    times: np.ndarray,
    extent: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """u_t + b . grad u = diffusivity lap u, float64 [T, Y, X] at `times` from u [Y, X]: exact for every wave. b: (b_y, b_x).

    The highest wave of an even grid, which has no direction, is not carried.
    """
    ky, kx = _waves(initial.shape, extent)
    signed = [
        np.where(2 * np.abs(np.fft.fftfreq(n)) < 1, k.ravel(), 0.0)
        for n, k in zip(initial.shape, (ky, kx), strict=True)
    ]
    turn = velocity[0] * signed[0][:, None] + velocity[1] * signed[1][None, :]
    rate = -diffusivity * (ky**2 + kx**2) - 1j * turn
    return np.real(np.fft.ifft2(np.exp(rate * times[:, None, None]) * np.fft.fft2(np.ascontiguousarray(initial))))


def vortices(
    initial: np.ndarray, viscosity: float, force: np.ndarray, times: np.ndarray, longest: float = 0.02
) -> np.ndarray:
    """Vorticity of a forced flow on the unit square, float64 [T, Y, X] at `times` (the first is that of the initial one).

    w_t + u . grad w = viscosity lap w + f, lap psi = -w, u = (psi_y, -psi_x). Runge-Kutta of order 4 after an exact factor
    for the viscous term, steps of at most `longest`; products lose their upper third of waves (the 2/3 rule), as the state.
    """
    ky, kx = _waves(initial.shape, (1.0, 1.0))
    square = ky**2 + kx**2
    inverse = np.divide(1.0, square, out=np.zeros_like(square), where=square > 0)
    limits = [2 * np.pi * n / 3 for n in initial.shape]
    kept = (np.abs(ky) < limits[0]) & (np.abs(kx) < limits[1])
    pushed = np.fft.fft2(force)

    def rate(w: np.ndarray) -> np.ndarray:
        psi = w * inverse
        fields = np.fft.ifft2(np.stack([1j * ky * psi, -1j * kx * psi, 1j * kx * w, 1j * ky * w]))
        u_x, u_y, w_x, w_y = np.real(fields)
        return kept * (pushed - np.fft.fft2(u_x * w_x + u_y * w_y))

    start = kept * np.fft.fft2(initial)
    later = frames(start, viscosity * square, rate, times, longest)
    return np.stack([np.real(np.fft.ifft2(w)) for w in (start, *later)])


def burgers(initial: np.ndarray, viscosity: float, times: np.ndarray, longest: float = 0.004) -> np.ndarray:
    """u_t + u u_x = viscosity u_xx on the unit interval, float64 [T, X] at `times` (the first is the initial one's).

    Runge-Kutta of order 4 after an exact factor for the viscous term, in conservation form, with the 2/3 rule.
    """
    points = len(initial)
    k = 2 * np.pi * np.fft.rfftfreq(points, 1 / points)
    kept = k < 2 * np.pi * points / 3

    def rate(u: np.ndarray) -> np.ndarray:
        return -0.5j * k * kept * np.fft.rfft(np.fft.irfft(u, points) ** 2)

    later = frames(kept * np.fft.rfft(initial), viscosity * k**2, rate, times, longest)
    return np.stack([initial, *(np.fft.irfft(u, points) for u in later)])
