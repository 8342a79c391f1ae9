"""Advection and diffusion: a concentration that a steady wind carries and mixing spreads, both of each sample's own.

    u_t + b . grad u = kappa lap u   on the periodic unit square

    u      concentration, 11 frames from t = 0 to 1
    b      wind (b_x, b_y), each drawn for each sample from -1 to 1
    kappa  diffusivity, drawn for each sample from 0.0005 to 0.005

The residual takes every wave from frame to frame by its exact factor exp(-(kappa |k|^2 + i b . k) dt): no truncation. Units:
all dimensionless. Recipe: equation, ranges and frames of FM4PDE (2026); initial states Gaussian, covariance (-lap + 36)^-4,
root mean square 1.

Terms: `interior`, of every interval; scale: that of a concentration that stands still. The state is periodic by its
operators, so there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pidscale.pde.propagated import Propagated, PropagatedParams


@dataclass(frozen=True)
class AdvectionDiffusionParams(PropagatedParams):
    """speed: the largest |b_x| and |b_y|, 0 to 100. The diffusivity is kappa of a sample."""

    speed: float = 1.0


@dataclass(frozen=True)
class AdvectionDiffusion(Propagated):
    """u_t + b . grad u = kappa lap u, periodic, b and kappa of each sample."""

    params: AdvectionDiffusionParams = AdvectionDiffusionParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> AdvectionDiffusion:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        p = AdvectionDiffusionParams.checked("advection_diffusion", given, {"speed": (0.0, 100.0)})
        return cls("advection_diffusion", ("concentration",), p.frames, p.duration, p)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """Wind and diffusivity of each sample."""
        wind = (-self.params.speed, self.params.speed)
        return {"velocity_x": wind, "velocity_y": wind, "diffusivity": self.params.diffusivity}

    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """(b_y, b_x, kappa)."""
        along_x, along_y, diffusivity = params
        return along_y, along_x, diffusivity
