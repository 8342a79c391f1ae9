"""Advection and diffusion: a concentration carried by a steady wind and spread by mixing, which vary from sample to sample.

    u_t + b . grad u = kappa lap u   on the periodic unit square

    u      concentration, frames from t = 0 to 1, 11 unless `frames` is given
    b      wind (b_x, b_y), each drawn for each sample from -1 to 1
    kappa  diffusivity, drawn for each sample from 0.0005 to 0.005

The residual propagates every wave from frame to frame by its exact factor exp(-(kappa |k|^2 + i b . k) dt) and has no
truncation error. All quantities are dimensionless. Equation, ranges and frames are those of FM4PDE (2026). The initial states
are Gaussian fields with covariance (-lap + 36)^-4 and root mean square 1.

Terms: `interior`, of every interval, relative to that of a concentration that does not change. The operators are periodic, so
there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pidscale.pde.propagated import Propagated, PropagatedParams


@dataclass(frozen=True)
class AdvectionDiffusionParams(PropagatedParams):
    """Parameters of the equation and of its data; the diffusivity is kappa.

    Attributes:
        speed: Largest |b_x| and |b_y|, 0 to 100.
    """

    speed: float = 1.0


@dataclass(frozen=True)
class AdvectionDiffusion(Propagated):
    """u_t + b . grad u = kappa lap u, periodic; b and kappa vary from sample to sample.

    Attributes:
        params: Parameters of the equation.
    """

    params: AdvectionDiffusionParams = AdvectionDiffusionParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> AdvectionDiffusion:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        p = AdvectionDiffusionParams.checked("advection_diffusion", given, {"speed": (0.0, 100.0)})
        return cls("advection_diffusion", ("concentration",), p.frames, p.duration, p)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """Wind and diffusivity of each sample."""
        wind = (-self.params.speed, self.params.speed)
        return {"velocity_x": wind, "velocity_y": wind, "diffusivity": self.params.diffusivity}

    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """Return b_y, b_x and kappa."""
        along_x, along_y, diffusivity = params
        return along_y, along_x, diffusivity
