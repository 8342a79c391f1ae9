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
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.pde.base import check_params, check_ranges, check_span
from pidscale.pde.evolution import FRAMES, RANGES
from pidscale.pde.propagated import Propagated


@dataclass(frozen=True)
class HeatParams:
    """diffusivity_low, diffusivity_high: alpha, 1e-6 to 10. duration, frames: of the data. alpha, tau: the initial law."""

    diffusivity_low: float = 5e-4
    diffusivity_high: float = 5e-3
    duration: float = 1.0
    frames: int = 11
    alpha: float = 4.0
    tau: float = 6.0


@dataclass(frozen=True)
class Heat(Propagated):
    """u_t = alpha lap u, periodic, alpha of each sample."""

    params: HeatParams = HeatParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Heat:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("heat", asdict(HeatParams()), given)
        ends = dict.fromkeys(("diffusivity_low", "diffusivity_high"), (1e-6, 10.0))
        check_ranges(values, RANGES | FRAMES | ends)
        check_span(values, "diffusivity")
        p = HeatParams(**values)
        ranges = (("diffusivity", p.diffusivity_low, p.diffusivity_high),)
        return cls("heat", ("temperature",), p.frames, p.duration, p.alpha, p.tau, ranges, p)

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    def velocity_and_diffusivity(self, params: Any) -> tuple[Any, Any, Any]:
        """(0, 0, alpha)."""
        (diffusivity,) = params
        return 0.0, 0.0, diffusivity
