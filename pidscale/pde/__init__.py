"""Equations, one file each: what they say, how to sample them, how to measure their residual. Knows no ranks.

A user's own equation is named by where it is found, `module:Class` (docs/own_equation.md).
"""

from __future__ import annotations

import importlib
import json
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


def build_pde(name: str, params: Mapping[str, Any] | None = None) -> Pde:
    """Return the equation of this name with its parameters (defaults where none is given).

    name: one of PDES, or `module:Class` of an equation of one's own. Raises UserError for an unknown equation or parameter.
    """
    if name not in PDES and ":" not in name:
        raise UserError(
            f"pde.name={name!r} is not an equation of this library: choose one of {sorted(PDES)}, or name your own as "
            "module:Class"
        )
    if name in PDES:
        return PDES[name](params or {})
    pde = _made(name, params or {})
    if pde.name != name:
        raise UserError(f"pde.name={name!r}: its `name` is {pde.name!r}; make them equal: cards find it again by name")
    return pde


def _made(path: str, params: Mapping[str, Any]) -> Pde:
    """An equation of the class that a path names, looked over. Raises UserError for whatever a user's module does wrong."""
    module, _, name = path.partition(":")
    try:
        make = getattr(importlib.import_module(module), name).from_params
    except (Exception, SystemExit) as error:
        where = "expected a class with `from_params`, in a module of this folder or on PYTHONPATH"
        raise UserError(f"pde.name={path!r}: {where} ({_said(error)})") from None
    try:
        pde: Pde = make(params)
        lacking = [part for part in _PARTS if not hasattr(pde, part)]
        if lacking:
            raise TypeError(f"it has no {', '.join(lacking)}")
        channels = {channel.name for channel in pde.channels}
        for parameter, (low, high) in pde.varying.items():
            if not low <= high or parameter in channels:
                raise ValueError(f"varying {parameter!r}: {low} to {high}; expected low <= high, and no channel's name")
        if make(pde.params_dict()) != pde:
            raise ValueError("params_dict() does not give the same equation back")
        json.dumps(pde.params_dict())
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"pde.name={path!r}: not an equation as pidscale.pde.base.Pde has it ({_said(error)})"
        ) from None
    return pde


_PARTS = [part for part in vars(Pde) if not part.startswith("_")]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
