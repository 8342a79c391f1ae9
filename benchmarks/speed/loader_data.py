"""The fields that benchmarks.speed.loader reads: the same numbers in a shard set, in npy files and in one HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.speed.contestants import SEED, Case
from pidscale.records.format import VERSION, sample_key
from pidscale.records.manifest import ChannelInfo, Manifest, Split
from pidscale.records.write import merge_stats, publish_manifest, write_shard

GIB = 2**30
SHARD_BYTES = 2**27  # about


def cases(root: Path, gib: float) -> list[Case]:
    """Return large and small fields; the small ones an eighth of the bytes."""
    found = []
    for name, shape, batch, total in (("8 MiB", (2, 1024, 1024), 4, gib), ("64 KiB", (1, 128, 128), 64, gib / 8)):
        batches = max(1, round(total * GIB / (4 * int(np.prod(shape)) * batch)))
        found.append(Case(name, shape, batch, batch * batches, root / name.replace(" ", "")))
    return found


def make(case: Case) -> None:
    """Write the numbers of a case three times."""
    shards = case.root / "shards"
    per = max(1, SHARD_BYTES // case.size)
    for folder in (shards, case.root / "npy"):
        folder.mkdir(parents=True)
    with h5py.File(case.root / "fields.h5", "w") as file:
        fields = file.create_dataset("fields", (case.samples, *case.shape), np.float32)
        parts = [
            write_shard(shards, "train", i, _written(case, fields, first, min(first + per, case.samples)))
            for i, first in enumerate(range(0, case.samples, per))
        ]
    stats = merge_stats([stats for _, stats in parts])
    split = Split((0, case.samples), case.samples, tuple(entry for entry, _ in parts))
    manifest = Manifest(
        version=VERSION,
        equation="darcy",
        channels=tuple(ChannelInfo(f"c{c}", "1", "input") for c in range(case.shape[0])),
        grid={"kind": "node", "shape": list(case.shape[1:]), "extent": [1.0, 1.0], "boundary": "dirichlet"},
        params={},
        normaliser={"mean": list(stats.mean), "std": list(stats.std)},
        dtype="float32",
        splits={"train": split},
        truth_residual={},
        request={},
    )
    publish_manifest(shards, manifest)


def _written(case: Case, fields: Any, first: int, last: int) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Samples for a shard, each written to the HDF5 file and to an npy file on the way."""
    for n in range(first, last):
        field = np.random.default_rng([SEED, n]).standard_normal(case.shape, np.float32)
        fields[n] = field
        np.save(case.root / "npy" / f"{sample_key(n)}.npy", field)
        yield sample_key(n), field, {"seed": n, "params": {}, "residual": {}}
