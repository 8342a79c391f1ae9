"""Checkpoints for tests: sealed by one process, and slices to seal. Knows no ranks and no networks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pidscale.engine.sealer import Retention, Sealer
from pidscale.engine.shelf import FolderShelf
from pidscale.engine.slices import Reader, Slice, file_name, write
from pidscale.parallel.mesh import Mesh


def whole(name: str, values: Tensor) -> Slice:
    """All of a tensor as one slice."""
    return Slice(name, tuple(values.shape), 0, values.flatten())


def seal(
    root: Path,
    step: int,
    state: dict[str, Any] | None = None,
    slices: Iterable[Slice] = (),
    keep: int = 10,
    keep_every: int = 0,
) -> None:
    """Write a checkpoint as a run of one process does, and wait until it is sealed."""
    sealer = Sealer.open(FolderShelf(root), Mesh(), 1, Retention(keep, keep_every))
    sealer.save(step, state or {}, slices)
    sealer.wait()


def write_old_manifest(folder: Path) -> None:
    """Make a checkpoint one of version 1, as far as its manifest says."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest |= {"version": 1, "files": {}}
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": checksum}))


def reader_of(folder: Path, tensors: Mapping[str, Tensor]) -> Reader:
    """A reader of whole tensors, by way of a file."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / file_name(0), [whole(name, values) for name, values in tensors.items()])
    return Reader.of(folder, [file_name(0)])
