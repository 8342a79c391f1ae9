"""The heat equation: a temperature that evens out in a material whose diffusivity varies from sample to sample.

    u_t = alpha lap u   on the periodic unit square

    u      temperature, frames from t = 0 to 1, 11 unless `frames` is given
    alpha  diffusivity, drawn for each sample from 0.0005 to 0.005

The residual propagates every wave from frame to frame by its exact factor exp(-alpha |k|^2 dt) and has no truncation error.
All quantities are dimensionless. Equation, range of alpha and frames are those of FM4PDE (2026). The initial states are
Gaussian fields with covariance (-lap + 36)^-4 and root mean square 1.

Terms: `interior`, of every interval, relative to that of a temperature that does not change. The operators are periodic, so
there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pidscale.pde.propagated import Propagated, PropagatedParams


@dataclass(frozen=True)
class HeatParams(PropagatedParams):
    """The diffusivity is alpha of the equation; the attributes alpha and tau belong to the initial state."""


@dataclass(frozen=True)
class Heat(Propagated):
    """u_t = alpha lap u, periodic; alpha varies from sample to sample.

    Attributes:
        params: Parameters of the equation.
    """

    params: HeatParams = HeatParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Heat:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        p = HeatParams.checked("heat", given)
        return cls("heat", ("temperature",), p.frames, p.duration, p)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """Diffusivity of each sample."""
        return {"diffusivity": self.params.diffusivity}

    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """Return 0, 0 and alpha."""
        (diffusivity,) = params
        return 0.0, 0.0, diffusivity
