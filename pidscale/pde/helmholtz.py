"""Helmholtz' equation: a standing wave driven by a source.

    lap u + k^2 u = f   on the unit square,   u = 0 on its edge

    f   source: a Gaussian field, root mean square 1, defined up to the edge
    u   solution

Both fields live on the same nodes (both ends included). The residual is the 5-point form, second order; the generator solves
the same discrete equation by sine modes, to rounding. Units: all dimensionless. Recipe: k = 1 and the source law
(-lap + 9)^-2 of DiffusionPDE (Huang et al., 2024), evaluated at the nodes and scaled, so that the residual's scale is 1.
Where k^2 meets an eigenvalue pi^2 (m^2 + n^2) there is no single solution: k near one of them is refused.

Terms: `interior` lap u + k^2 u - f, scale 1 (RMS of the source); `boundary` u on the edge, scale
RMS of u for a typical source.
Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.config import UserError
from pidscale.pde.dirichlet import ShiftedPoisson
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import LAW

NEAREST = 0.02  # least distance of k^2 to an eigenvalue, as a share of that eigenvalue


@dataclass(frozen=True)
class HelmholtzParams:
    """wavenumber: k, 0 to 50. alpha, tau: the source's law, covariance (-lap + tau^2)^-alpha; alpha above 1, tau above 0."""

    wavenumber: float = 1.0
    alpha: float = 2.0
    tau: float = 3.0


@dataclass(frozen=True)
class Helmholtz(ShiftedPoisson):
    """lap u + k^2 u = f on nodes, u = 0 on the edge."""

    params: HelmholtzParams = HelmholtzParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Helmholtz:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("helmholtz", asdict(HelmholtzParams()), given)
        check_ranges(values, LAW | {"wavenumber": (0.0, 50.0)})
        params = HelmholtzParams(**values)
        _check_resonance(params.wavenumber)
        return cls("helmholtz", params.wavenumber**2, params.alpha, params.tau, "helmholtz/source", params=params)

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)


def _check_resonance(k: float) -> None:
    for m in range(1, 17):
        for n in range(m, 17):
            eigenvalue = math.pi**2 * (m * m + n * n)
            if abs(k * k - eigenvalue) < NEAREST * eigenvalue:
                raise UserError(
                    f"pde.params.wavenumber={k}: k^2 is within {NEAREST:.0%} of {eigenvalue:.1f}, an eigenvalue of -lap on "
                    "the unit square, where the equation has no single solution; choose another k"
                )
