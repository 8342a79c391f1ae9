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
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.pde.base import check_params, check_ranges, check_span
from pidscale.pde.evolution import FRAMES, RANGES
from pidscale.pde.propagated import Propagated


@dataclass(frozen=True)
class AdvectionDiffusionParams:
    """speed: the largest |b_x| and |b_y|, 0 to 100. diffusivity_low, diffusivity_high: kappa of a sample, 1e-6 to 10.

    duration, frames: of the data. alpha, tau: the law of the initial state.
    """

    speed: float = 1.0
    diffusivity_low: float = 5e-4
    diffusivity_high: float = 5e-3
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 6.0


@dataclass(frozen=True)
class AdvectionDiffusion(Propagated):
    """u_t + b . grad u = kappa lap u, periodic, b and kappa of each sample."""

    params: AdvectionDiffusionParams = AdvectionDiffusionParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> AdvectionDiffusion:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("advection_diffusion", asdict(AdvectionDiffusionParams()), given)
        ends = dict.fromkeys(("diffusivity_low", "diffusivity_high"), (1e-6, 10.0))
        check_ranges(values, RANGES | FRAMES | ends | {"speed": (0.0, 100.0)})
        check_span(values, "diffusivity")
        p = AdvectionDiffusionParams(**values)
        wind = tuple((name, -p.speed, p.speed) for name in ("velocity_x", "velocity_y"))
        ranges = (*wind, ("diffusivity", p.diffusivity_low, p.diffusivity_high))
        return cls("advection_diffusion", ("concentration",), p.frames, p.duration, p.alpha, p.tau, ranges, p)

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """(b_y, b_x, kappa)."""
        along_x, along_y, diffusivity = params
        return along_y, along_x, diffusivity
