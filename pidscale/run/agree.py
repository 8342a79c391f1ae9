"""Settings that all ranks of a run must have in common, checked before anything is computed. Knows no models or equations."""

from __future__ import annotations

from pidscale.config import Settings, UserError, to_flat
from pidscale.parallel.mesh import Mesh


def agree(settings: Settings, mesh: Mesh) -> None:
    """Check that all ranks have the same settings. One broadcast of the settings and one all-reduce of 8 bytes.

    Args:
        settings: Settings of this rank.
        mesh: The mesh of ranks.

    Raises:
        UserError: On every rank, when the settings of one differ from those of the first.
    """
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
