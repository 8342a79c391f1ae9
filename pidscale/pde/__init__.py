"""Equations, one file each: what they say, how to sample them, how to measure their residual. Knows no ranks.

A user's own equation is named by where it is found, `module:Class` (docs/own_equation.md).
"""

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
from pidscale.pde.own import NotImported, check_imported, is_own, own_pde
from pidscale.pde.poisson import Poisson
from pidscale.pde.reaction_diffusion import ReactionDiffusion
from pidscale.pde.stokes import Stokes
from pidscale.pde.wave import Wave
from pidscale.plain import printable

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

    name: one of PDES, or `module:Class` of an equation of one's own, whose module is imported: a name that the user gave.
    One that a file gives is for `stored_pde`. Raises UserError for an unknown equation or parameter.
    """
    if name in PDES:
        return PDES[name](params or {})
    if is_own(name):
        return own_pde(name, params or {})
    raise UserError(
        f"pde.name={name!r} is not an equation of this library: choose one of {sorted(PDES)}, or name your own as "
        "module:Class"
    )


def stored_pde(where: str, name: Any, params: Any) -> Pde:
    """Return the equation that a file names: a card, a manifest or a request. Nothing is imported for it.

    where: the file, for messages. Raises UserError for an equation of one's own whose module is not imported yet, and for
    what is none.
    """
    try:
        if not isinstance(name, str) or not isinstance(params, Mapping):
            raise TypeError("expected a name, and a dict of parameters")
        if is_own(name):
            check_imported(where, name)
        return build_pde(name, dict(params))
    except NotImported:
        raise
    except (UserError, TypeError, ValueError, ArithmeticError) as error:
        said = printable(" ".join(str(error).split()))[:120]
        raise UserError(
            f"{where}: equation {str(name)[:80]!r} and its parameters do not fit together ({said}); restore the file"
        ) from None
