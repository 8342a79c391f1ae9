"""What heat and advection-diffusion share: u_t + b . grad u = d lap u on the periodic unit square, exact wave by wave.

Every wave turns and fades at its own rate, u_k(t + dt) = exp(L_k dt) u_k(t) with L_k = -d |k|^2 - i b . k, so two frames
obey (u_k[n + 1] - exp(L_k dt) u_k[n]) / dt = 0 exactly, which is the residual: no truncation. (Plain differences of 11
frames would leave 0.1 of the scale for heat, 0.5 for advection-diffusion.) Knows no files, no models and no ranks.
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
from pidscale.ops.spectral import directed, field_of, wave_numbers, waves
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, PeriodicEvolution
from pidscale.pde.parameters import check_params, check_ranges, check_span
from pidscale.pde.random_fields import periodic_field

_DIFFUSIVITY = dict.fromkeys(("diffusivity_low", "diffusivity_high"), (1e-6, 10.0))


@dataclass(frozen=True)
class PropagatedParams:
    """diffusivity_low, diffusivity_high: of a sample, 1e-6 to 10. duration, frames: of the data. alpha, tau: initial law."""

    diffusivity_low: float = 5e-4
    diffusivity_high: float = 5e-3
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 6.0

    @classmethod
    def checked(cls, name: str, given: Mapping[str, Any], own: Mapping[str, tuple[float, float]] | None = None) -> Self:
        """Build from plain values. own: ranges of what a subclass adds. Raises UserError that names the parameter."""
        values = check_params(name, asdict(cls()), given)
        check_ranges(values, RANGES | FRAMES | _DIFFUSIVITY | dict(own or {}))
        check_span(values, "diffusivity")
        return cls(**values)

    @property
    def diffusivity(self) -> tuple[float, float]:
        """The range of a sample's diffusivity."""
        return self.diffusivity_low, self.diffusivity_high


@dataclass(frozen=True)
class Propagated(PeriodicEvolution):
    """One species; its initial state has root mean square 1."""

    splits: ClassVar[bool] = True
    params: PropagatedParams = PropagatedParams()

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    @abstractmethod
    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """(b_y, b_x, d) from the varying parameters: floats from a sequence, or tensors [B] from the columns of [B, P]."""

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """A smooth field, [1, Y, X]."""
        p = self.params
        return periodic_field(seed, f"{self.name}/initial", counter, grid.shape, p.alpha, p.tau)[None]

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Every wave at its own rate, [F, 1, Y, X]."""
        from pidscale.pde.solve.periodic import carried

        b_y, b_x, diffusivity = self.velocity_and_diffusivity(params)
        times = np.arange(self.frames) * self.interval
        return carried(initial[0], (b_y, b_x), diffusivity, times, grid.extent)[:, None]

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """The residual of every interval, [B, F - 1, 1, Y, X]."""
        u, dt = frames_BFSYX, self.interval
        ky, kx = wave_numbers(window, u)
        towards_y, towards_x = directed(window, u)
        b_y, b_x, diffusivity = (
            torch.as_tensor(part, dtype=u.dtype, device=u.device).reshape(-1, 1, 1)
            for part in self.velocity_and_diffusivity(params_BP.unbind(dim=1))
        )
        turn = dt * (b_y * towards_y + b_x * towards_x)
        fade = -dt * diffusivity * (ky**2 + kx**2)
        # exp(L dt) - 1 without cancellation
        real = torch.expm1(fade) * turn.cos() - 2 * (turn / 2).sin().square()
        growth = torch.complex(real, -fade.exp() * turn.sin())[:, None, None]
        change = field_of(window, growth * waves(window, u[:, :-1]))
        return ((u[:, 1:] - u[:, :-1]) - change) / dt
