"""Poisson's equation: the potential of a source.

    lap u = f   on the unit square,   u = 0 on its edge

    f   source: a Gaussian field, root mean square 1, defined up to the edge
    u   solution

Both fields live on the same nodes (both ends included). The residual is the 5-point form, second order; the generator solves
the same discrete equation by sine modes, to rounding. Units: all dimensionless. Recipe: the source law (-lap + 9)^-2 of
DiffusionPDE (Huang et al., 2024), evaluated at the nodes and scaled, so that the residual's scale is 1.

Terms: `interior` lap u - f, scale 1 (RMS of the source); `boundary` u on the edge, scale RMS of u for a typical source.
Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pidscale.pde.dirichlet import ShiftedPoisson
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import LAW


@dataclass(frozen=True)
class PoissonParams:
    """alpha, tau: the source's law, covariance (-lap + tau^2)^-alpha; alpha above 1, tau above 0."""

    alpha: float = 2.0
    tau: float = 3.0


@dataclass(frozen=True)
class Poisson(ShiftedPoisson):
    """lap u = f on nodes, u = 0 on the edge."""

    params: PoissonParams = PoissonParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Poisson:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("poisson", asdict(PoissonParams()), given)
        check_ranges(values, LAW)
        params = PoissonParams(**values)
        return cls("poisson", 0.0, params.alpha, params.tau, "poisson/source", params=params)

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)
