"""Equations, one file each: what they say, how to sample them, how to measure their residual. Knows no ranks."""

from __future__ import annotations

from pidscale.config import UserError
from pidscale.pde.base import Pde
from pidscale.pde.darcy import Darcy

PDES: dict[str, type[Darcy]] = {"darcy": Darcy}


def build_pde(name: str, params: dict[str, object] | None = None) -> Pde:
    """Return the equation of this name with its parameters (defaults where none is given).

    Raises UserError for an unknown equation or parameter.
    """
    if name not in PDES:
        raise UserError(f"pde.name={name!r} is not an equation of this library: choose one of {sorted(PDES)}")
    return PDES[name].from_params(params or {})
