"""What all ranks of a run must hold in common, checked before anything is computed. Knows no models and no equations."""

from __future__ import annotations

from pidscale.config import Settings, UserError, to_flat
from pidscale.parallel.mesh import Mesh


def agree(settings: Settings, mesh: Mesh) -> None:
    """Raise UserError on every rank where one was given other settings than the first. One broadcast, one all-reduce."""
    own = to_flat(settings)
    first = mesh.broadcast(own)
    if mesh.any(own != first):
        keys = [key for key in own if own[key] != first.get(key)]
        found = ", ".join(f"{key}={own[key]!r}, not {first.get(key)!r} as on rank 0" for key in keys)
        raise UserError(
            f"rank {mesh.rank} was given {found}; start all workers with the same settings"
            if keys
            else "another worker was given other settings; start all workers with the same ones"
        )
