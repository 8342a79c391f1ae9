"""Equations, one file each: what each says, how to sample it, and how to measure its residual. Knows no files and no ranks.

A user's own equation is named by the place of its class, `module:Class` (docs/own_equation.md).
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
    """Return an equation that the user names.

    Args:
        name: One of PDES, or `module:Class` of a user's own equation, whose module is imported. A name that a file gives is
            for `stored_pde`.
        params: Parameters that replace defaults.

    Returns:
        The equation.

    Raises:
        UserError: When the equation or a parameter is unknown, or the user's own module fails.
    """
    if name in PDES:
        return PDES[name](params or {})
    if is_own(name):
        return own_pde(name, params or {})
    raise UserError(
        f"pde.name={name!r}: not an equation of this library; choose one of {sorted(PDES)}, or name your own as "
        "module:Class"
    )


def stored_pde(where: str, name: Any, params: Any) -> Pde:
    """Return an equation that a file names: a card, a manifest or a request. No module is imported for it.

    Args:
        where: The file, for messages.
        name: Name of the equation as the file has it.
        params: Its parameters as the file has them.

    Returns:
        The equation.

    Raises:
        NotImported: When the equation is a user's own and its module has not been imported.
        UserError: When name and parameters do not give an equation.
    """
    try:
        return _from_plain(where, name, params)
    except NotImported:
        raise
    except (UserError, TypeError, ValueError, ArithmeticError) as error:
        reason = printable(" ".join(str(error).split()))[:120]
        raise UserError(
            f"{where}: equation {str(name)[:80]!r} cannot be built with its parameters ({reason}); restore the file"
        ) from None


def _from_plain(where: str, name: Any, params: Any) -> Pde:
    """Return the equation of a name and parameters of any type; errors are those of whatever refuses them."""
    if not isinstance(name, str) or not isinstance(params, Mapping):
        raise TypeError("expected a name and a dict of parameters")
    if is_own(name):
        check_imported(where, name)
    return build_pde(name, dict(params))
