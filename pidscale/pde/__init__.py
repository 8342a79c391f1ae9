"""Equations, one file each: what they say, how to sample them, how to measure their residual. Knows no ranks.

A user's own equation is named by where it is found, `module:Class` (docs/own_equation.md).
"""

from __future__ import annotations

import importlib
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

    name: one of PDES, or `module:Class` of an equation of one's own. Raises UserError for an unknown equation or parameter.
    """
    if name not in PDES and ":" not in name:
        raise UserError(
            f"pde.name={name!r} is not an equation of this library: choose one of {sorted(PDES)}, or name your own as "
            "module:Class"
        )
    pde = (PDES[name] if name in PDES else _own(name))(params or {})
    if pde.name != name:
        raise UserError(f"pde.name={name!r}: its `name` is {pde.name!r}; make them equal: cards find it again by name")
    return pde


def _own(path: str) -> Callable[[Mapping[str, Any]], Pde]:
    """`from_params` of the class that a path names. Raises UserError."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        make: Callable[[Mapping[str, Any]], Pde] = found.from_params
    except Exception as error:  # whatever a user's module does wrong
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"pde.name={path!r}: expected a class with `from_params`, in a module of this folder or on PYTHONPATH ({said})"
        ) from None
    return make
