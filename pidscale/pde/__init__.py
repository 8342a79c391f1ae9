"""Equations, one file each: what they say, how to sample them, how to measure their residual. Knows no ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pidscale.config import UserError
from pidscale.pde.advection_diffusion import AdvectionDiffusion
from pidscale.pde.base import Pde
from pidscale.pde.burgers import Burgers
from pidscale.pde.darcy import Darcy
from pidscale.pde.heat import Heat
from pidscale.pde.helmholtz import Helmholtz
from pidscale.pde.navier_stokes import NavierStokes
from pidscale.pde.poisson import Poisson
from pidscale.pde.reaction_diffusion import ReactionDiffusion
from pidscale.pde.stokes import Stokes
from pidscale.pde.wave import Wave

PDES: dict[str, Callable[[Mapping[str, Any]], Pde]] = {
    "advection_diffusion": AdvectionDiffusion.from_params,
    "burgers": Burgers.from_params,
    "darcy": Darcy.from_params,
    "heat": Heat.from_params,
    "helmholtz": Helmholtz.from_params,
    "navier_stokes": NavierStokes.from_params,
    "poisson": Poisson.from_params,
    "reaction_diffusion": ReactionDiffusion.from_params,
    "stokes": Stokes.from_params,
    "wave": Wave.from_params,
}


def build_pde(name: str, params: dict[str, object] | None = None) -> Pde:
    """Return the equation of this name with its parameters (defaults where none is given).

    Raises UserError for an unknown equation or parameter.
    """
    if name not in PDES:
        raise UserError(f"pde.name={name!r} is not an equation of this library: choose one of {sorted(PDES)}")
    return PDES[name](params or {})
