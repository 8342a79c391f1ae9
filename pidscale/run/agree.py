"""What all ranks of a run must have in common, checked before anything is computed. Knows no models or equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pidscale.config import Settings, UserError, to_flat
from pidscale.parallel.mesh import Mesh
from pidscale.run.phases import versions


def agree(settings: Settings, mesh: Mesh, inputs: Mapping[str, Any] | None = None) -> None:
    """Check that all ranks have the same settings, versions and inputs. One broadcast of these and one all-reduce of 8 bytes.

    Args:
        settings: Settings of this rank.
        mesh: The mesh of ranks.
        inputs: What this rank sees of files that all ranks read, such as a checksum, by a name that the message shows.

    Raises:
        UserError: On every rank, when something of one differs from that of the first.
    """
    own = {**to_flat(settings), **versions(), **(inputs or {})}
    first = mesh.broadcast(own)
    if mesh.any(own != first):
        keys = [key for key in own if own[key] != first.get(key)]
        found = ", ".join(f"{key}={own[key]!r}, not {first.get(key)!r} as on rank 0" for key in keys)
        raise UserError(
            f"rank {mesh.rank} has {found}; give all workers the same settings, versions and files"
            if keys
            else "another worker has other settings, versions or files; give all workers the same ones"
        )
