"""Solvers on periodic domains, by numpy's Fourier transforms: waves, advection and diffusion, vorticity, Burgers.

Must not know `ops`, whose residual is a check on these solvers only as long as the two share no code.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pidscale.pde.solve.stepping import integrate


@lru_cache(maxsize=16)
def _waves(shape: tuple[int, int], extent: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return angular wave numbers ky [Y, 1] and kx [1, X]."""
    ky, kx = (2 * np.pi * np.fft.fftfreq(n, length / n) for n, length in zip(shape, extent, strict=True))
    return ky[:, None], kx[None, :]


def standing_waves(
    initial: np.ndarray, speed: float, times: np.ndarray, extent: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Solve u_tt = speed^2 lap u from rest, exactly for every wave.

    Args:
        initial: u at time 0 [Y, X].
        speed: Speed of the waves.
        times: Times of the frames [T].
        extent: Lengths (Ly, Lx) of the domain.

    Returns:
        Frames, float64 [T, Y, X].
    """
    ky, kx = _waves(initial.shape, extent)
    rate = speed * np.hypot(ky, kx)
    return np.real(np.fft.ifft2(np.cos(rate * times[:, None, None]) * np.fft.fft2(np.ascontiguousarray(initial))))


def advect_and_diffuse(
    initial: np.ndarray,
    velocity: tuple[float, float],
    diffusivity: float,
    times: np.ndarray,
    extent: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Solve u_t + b . grad u = diffusivity lap u, exactly for every wave.

    The highest wave of an even grid has no direction and is not advected.

    Args:
        initial: u at time 0 [Y, X].
        velocity: b as (b_y, b_x).
        diffusivity: Diffusivity.
        times: Times of the frames [T].
        extent: Lengths (Ly, Lx) of the domain.

    Returns:
        Frames, float64 [T, Y, X].
    """
    ky, kx = _waves(initial.shape, extent)
    signed = [
        np.where(2 * np.abs(np.fft.fftfreq(n)) < 1, k.ravel(), 0.0)
        for n, k in zip(initial.shape, (ky, kx), strict=True)
    ]
    phase = velocity[0] * signed[0][:, None] + velocity[1] * signed[1][None, :]
    rate = -diffusivity * (ky**2 + kx**2) - 1j * phase
    return np.real(np.fft.ifft2(np.exp(rate * times[:, None, None]) * np.fft.fft2(np.ascontiguousarray(initial))))


def vortices(
    initial: np.ndarray, viscosity: float, force: np.ndarray, times: np.ndarray, longest: float = 0.02
) -> np.ndarray:
    """Solve w_t + u . grad w = viscosity lap w + f with lap psi = -w, u = (psi_y, -psi_x) on the unit square.

    Pseudo-spectral, with Runge-Kutta steps of order 4 and an exact factor for the viscous term. State and products keep the
    lower two thirds of the waves (2/3 rule).

    Args:
        initial: Vorticity at the first time [Y, X].
        viscosity: Viscosity.
        force: f [Y, X].
        times: Times of the frames [T].
        longest: Longest time step; a shorter one is taken where waves would grow with it.

    Returns:
        Vorticity, float64 [T, Y, X].
    """
    ky, kx = _waves(initial.shape, (1.0, 1.0))
    square = ky**2 + kx**2
    inverse = np.divide(1.0, square, out=np.zeros_like(square), where=square > 0)
    limits = [2 * np.pi * n / 3 for n in initial.shape]
    kept = (np.abs(ky) < limits[0]) & (np.abs(kx) < limits[1])
    forcing = np.fft.fft2(force)

    def rate(w: np.ndarray) -> np.ndarray:
        psi = w * inverse
        fields = np.fft.ifft2(np.stack([1j * ky * psi, -1j * kx * psi, 1j * kx * w, 1j * ky * w]))
        u_x, u_y, w_x, w_y = np.real(fields)
        return kept * (forcing - np.fft.fft2(u_x * w_x + u_y * w_y))

    start = kept * np.fft.fft2(initial)
    fastest = float(np.abs(np.fft.ifft2(np.sqrt(square) * inverse * start)).max())
    fastest += float(np.abs(force).max() * (times[-1] - times[0])) / (2 * np.pi)  # at most, by the longest wave
    step = _stable_step(longest, fastest, np.sqrt(square)[kept], viscosity)
    later = integrate(start, viscosity * square, rate, times, step)
    return np.stack([np.real(np.fft.ifft2(w)) for w in (start, *later)])


def _stable_step(longest: float, speed: float, k: np.ndarray, viscosity: float) -> float:
    """Return the longest time step, halved until no wave grows in a Runge-Kutta step that advects and damps it."""
    step = longest
    while True:
        z = 1j * speed * k * step
        factors = np.abs(1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24) * np.exp(-viscosity * k**2 * step)
        if not float(factors.max()) > 1 + 1e-9:  # nor for a speed that is not finite
            return step
        step /= 2


def burgers(initial: np.ndarray, viscosity: float, times: np.ndarray, longest: float = 0.004) -> np.ndarray:
    """Solve u_t + u u_x = viscosity u_xx on the unit interval.

    Pseudo-spectral in conservation form with the 2/3 rule, Runge-Kutta steps of order 4 and an exact factor for the viscous
    term.

    Args:
        initial: u at the first time [X].
        viscosity: Viscosity.
        times: Times of the rows [T].
        longest: Longest time step; a shorter one is taken where waves would grow with it.

    Returns:
        Rows, float64 [T, X].
    """
    points = len(initial)
    k = 2 * np.pi * np.fft.rfftfreq(points, 1 / points)
    kept = k < 2 * np.pi * points / 3
    step = _stable_step(longest, float(np.abs(initial).max()), k[kept], viscosity)

    def rate(u: np.ndarray) -> np.ndarray:
        return -0.5j * k * kept * np.fft.rfft(np.fft.irfft(u, points) ** 2)

    later = integrate(kept * np.fft.rfft(initial), viscosity * k**2, rate, times, step)
    return np.stack([initial, *(np.fft.irfft(u, points) for u in later)])
