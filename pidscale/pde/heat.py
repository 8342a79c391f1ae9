"""The heat equation: a temperature that evens out, in a material whose diffusivity differs from sample to sample.

    u_t = alpha lap u   on the periodic unit square

    u      temperature, 11 frames from t = 0 to 1
    alpha  diffusivity, drawn for each sample from 0.0005 to 0.005

The residual takes every wave from frame to frame by its exact factor exp(-alpha |k|^2 dt): no truncation. Units: all
dimensionless. Recipe: equation, range of alpha and frames of FM4PDE (2026); initial states Gaussian, covariance
(-lap + 36)^-4, root mean square 1.

Terms: `interior`, of every interval; scale: that of a temperature that stands still. The state is periodic by its operators,
so there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pidscale.pde.propagated import Propagated, PropagatedParams


@dataclass(frozen=True)
class HeatParams(PropagatedParams):
    """The diffusivity is alpha of a sample; alpha and tau here are those of the law of the initial state."""


@dataclass(frozen=True)
class Heat(Propagated):
    """u_t = alpha lap u, periodic, alpha of each sample."""

    params: HeatParams = HeatParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Heat:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        p = HeatParams.checked("heat", given)
        return cls("heat", ("temperature",), p.frames, p.duration, p)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """The diffusivity of each sample."""
        return {"diffusivity": self.params.diffusivity}

    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """(0, 0, alpha)."""
        (diffusivity,) = params
        return 0.0, 0.0, diffusivity
