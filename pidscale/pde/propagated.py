"""Base class of heat and advection-diffusion: u_t + b . grad u = d lap u on the periodic unit square, exact for each wave.

Every wave decays and is advected independently, u_k(t + dt) = exp(L_k dt) u_k(t) with L_k = -d |k|^2 - i b . k. Two frames
thus satisfy (u_k[n + 1] - exp(L_k dt) u_k[n]) / dt = 0 exactly; this is the residual, and it has no truncation error. (Plain
differences of 11 frames would leave 0.1 of the scale for heat, 0.5 for advection-diffusion.) Knows no files, no models and no
ranks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.spectral import field_of, signed_wave_numbers, wave_numbers, waves
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, PeriodicEvolution
from pidscale.pde.parameters import check_span, read_params
from pidscale.pde.random_fields import periodic_field

_DIFFUSIVITY = dict.fromkeys(("diffusivity_low", "diffusivity_high"), (1e-6, 10.0))


@dataclass(frozen=True)
class PropagatedParams:
    """Parameters of an equation and of its data.

    Attributes:
        diffusivity_low: Smallest diffusivity of a sample, 1e-6 to 10.
        diffusivity_high: Largest diffusivity of a sample, 1e-6 to 10.
        duration: Time from the first frame to the last.
        frames: Number of frames.
        alpha: Exponent of the covariance of the initial state.
        tau: Inverse length of that covariance.
    """

    diffusivity_low: float = 5e-4
    diffusivity_high: float = 5e-3
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 6.0

    @classmethod
    def checked(cls, name: str, given: Mapping[str, Any], own: Mapping[str, tuple[float, float]] | None = None) -> Self:
        """Return the parameters from plain values; UserError for one that is unknown, ill-typed or out of range.

        Args:
            name: Name of the equation, for messages.
            given: Values that replace defaults.
            own: Ranges of the parameters that a subclass adds.

        Returns:
            The parameters.
        """
        params = read_params(name, cls, given, RANGES | FRAMES | _DIFFUSIVITY | dict(own or {}))
        check_span(asdict(params), "diffusivity")
        return params

    @property
    def diffusivity(self) -> tuple[float, float]:
        """Range of a sample's diffusivity."""
        return self.diffusivity_low, self.diffusivity_high


@dataclass(frozen=True)
class Propagated(PeriodicEvolution):
    """One species whose initial state has root mean square 1.

    Attributes:
        splits: True: the residual asks the window for the transforms that it needs.
        exact: True: one step of `correct` leaves nothing to correct.
        params: Parameters of the equation.
    """

    splits: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    params: PropagatedParams = PropagatedParams()

    @abstractmethod
    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """Return velocity and diffusivity from the varying parameters.

        Args:
            params: The varying parameters in order: floats of one sample, or one tensor [B] each.

        Returns:
            b_y, b_x and d, as numbers or as tensors [B].
        """

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """Return a smooth field, float64 [1, Y, X]."""
        p = self.params
        return periodic_field(seed, f"{self.name}/initial", counter, grid.shape, p.alpha, p.tau)[None]

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Return the frames, exact for every wave, float64 [F, 1, Y, X]."""
        from pidscale.pde.solve.periodic import advect_and_diffuse

        b_y, b_x, diffusivity = self.velocity_and_diffusivity(params)
        times = np.arange(self.frames) * self.interval
        return advect_and_diffuse(initial[0], (b_y, b_x), diffusivity, times, grid.extent)[:, None]

    def _exponents(self, window: Window, like: Tensor, params_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Return decay and phase of every wave over one interval, [B, Y, k] each: L_k dt = decay - i phase."""
        ky, kx = wave_numbers(window, like)
        signed_ky, signed_kx = signed_wave_numbers(window, like)
        b_y, b_x, diffusivity = (
            torch.as_tensor(part, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)
            for part in self.velocity_and_diffusivity(params_BP.unbind(dim=1))
        )
        phase = self.interval * (b_y * signed_ky + b_x * signed_kx)
        return -self.interval * diffusivity * (ky**2 + kx**2), phase

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the first frame with the frames that follow from it, exact for every wave. Two transposes."""
        decay, phase = (part[:, None] for part in self._exponents(window, fields_BCYX, params_BP))
        first = fields_BCYX[:, :1]
        count = torch.arange(1, self.frames, dtype=decay.dtype, device=decay.device)[:, None, None]
        growth = torch.polar((count * decay).exp(), -count * phase)
        return torch.cat([first, field_of(window, growth * waves(window, first))], dim=1)

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the residual of every interval, [B, F - 1, 1, Y, X]."""
        u = frames_BFSYX
        dt = self.interval
        decay, phase = self._exponents(window, u, params_BP)
        # exp(L dt) - 1 without cancellation
        real = torch.expm1(decay) * phase.cos() - 2 * (phase / 2).sin().square()
        growth = torch.complex(real, -decay.exp() * phase.sin())[:, None, None]
        change = field_of(window, growth * waves(window, u[:, :-1]))
        return ((u[:, 1:] - u[:, :-1]) - change) / dt
