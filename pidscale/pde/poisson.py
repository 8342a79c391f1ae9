"""Poisson's equation: the potential of a source.

    lap u = f   on the unit square,   u = 0 on its edge

    f   source: a Gaussian field of root mean square 1, defined up to the edge
    u   solution

Both fields are given on the same nodes (both ends included). The residual is the 5-point form, second order; the solver finds
the solution of the same discrete equation by sine modes, to rounding. All quantities are dimensionless. The covariance
(-lap + 9)^-2 of the source is that of DiffusionPDE (Huang et al., 2024), evaluated at the nodes and scaled, so that the
residual's scale is 1.

Terms: `interior` lap u - f, relative to 1 (root mean square of the source); `boundary` u on the edge, relative to the root
mean square of u for a typical source.
Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pidscale.pde.dirichlet import ShiftedPoisson
from pidscale.pde.parameters import read_params
from pidscale.pde.random_fields import COVARIANCE


@dataclass(frozen=True)
class PoissonParams:
    """Parameters of the source.

    Attributes:
        alpha: Exponent of the source's covariance (-lap + tau^2)^-alpha, above 1.
        tau: Inverse length of that covariance, above 0.
    """

    alpha: float = 2.0
    tau: float = 3.0


@dataclass(frozen=True)
class Poisson(ShiftedPoisson):
    """lap u = f on nodes, u = 0 on the edge.

    Attributes:
        params: Parameters of the source.
    """

    params: PoissonParams = PoissonParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Poisson:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        params = read_params("poisson", PoissonParams, given, COVARIANCE)
        return cls("poisson", 0.0, params.alpha, params.tau, "poisson/source", params=params)
