"""The Helmholtz equation: a standing wave driven by a source.

    lap u + k^2 u = f   on the unit square,   u = 0 on its edge

    f   source: a Gaussian field of root mean square 1, defined up to the edge
    u   solution

Both fields are given on the same nodes (both ends included). The residual is the 5-point form, second order; the solver finds
the solution of the same discrete equation by sine modes, to rounding. All quantities are dimensionless. k = 1 and the
covariance (-lap + 9)^-2 of the source are those of DiffusionPDE (Huang et al., 2024), evaluated at the nodes and scaled, so
that the residual's scale is 1. Where k^2 is an eigenvalue pi^2 (m^2 + n^2), the solution is not unique: k near one of them is
refused.

Terms: `interior` lap u + k^2 u - f, relative to 1 (root mean square of the source); `boundary` u on the edge, relative to the
root mean square of u for a typical source.
Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pidscale.config import UserError
from pidscale.pde.dirichlet import ShiftedPoisson
from pidscale.pde.parameters import read_params
from pidscale.pde.random_fields import COVARIANCE

NEAREST = 0.02  # smallest distance of k^2 from an eigenvalue, as a share of that eigenvalue


@dataclass(frozen=True)
class HelmholtzParams:
    """Parameters of the Helmholtz equation and of its source.

    Attributes:
        wavenumber: k, 0 to 50.
        alpha: Exponent of the source's covariance (-lap + tau^2)^-alpha, above 1.
        tau: Inverse length of that covariance, above 0.
    """

    wavenumber: float = 1.0
    alpha: float = 2.0
    tau: float = 3.0


@dataclass(frozen=True)
class Helmholtz(ShiftedPoisson):
    """lap u + k^2 u = f on nodes, u = 0 on the edge.

    Attributes:
        params: Parameters of the equation.
    """

    params: HelmholtzParams = HelmholtzParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Helmholtz:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        params = read_params("helmholtz", HelmholtzParams, given, COVARIANCE | {"wavenumber": (0.0, 50.0)})
        _check_resonance(params.wavenumber)
        return cls("helmholtz", params.wavenumber**2, params.alpha, params.tau, "helmholtz/source", params=params)


def _check_resonance(k: float) -> None:
    """Raise UserError where k^2 is close to an eigenvalue of -lap."""
    for m in range(1, 17):
        for n in range(m, 17):
            eigenvalue = math.pi**2 * (m * m + n * n)
            if abs(k * k - eigenvalue) < NEAREST * eigenvalue:
                raise UserError(
                    f"pde.params.wavenumber={k}: k^2 is within {NEAREST:.0%} of {eigenvalue:.1f}, an eigenvalue of -lap on "
                    "the unit square, where the solution is not unique; choose another k"
                )
