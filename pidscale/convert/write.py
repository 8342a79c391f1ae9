"""Writes the shards of a converted set, each sample with the residual of what is stored. Must not know layouts of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.parameters import Parameters
from pidscale.convert.sample_reader import SampleReader
from pidscale.dataset.hold import check_request, hold_set
from pidscale.dataset.publish import FIRST_COUNTER, FinishedShard, build_manifest, ensure_shard
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.pde.residuals import truth_residuals
from pidscale.records.check import check_set, check_wanted, load_manifest
from pidscale.records.format import sample_key
from pidscale.records.manifest import Manifest
from pidscale.records.write import Sample, publish_manifest


def write_set(
    root: Path,
    recipe: dict[str, Any],
    pde: Pde,
    grid: Grid,
    reader: SampleReader,
    parameters: Parameters,
    numbers: Mapping[str, list[int]],
    progress: Callable[[str, int, int], None] | None,
) -> Manifest:
    """Write a set, or what is missing of it; a finished set is left unchanged.

    Args:
        root: The folder of the set.
        recipe: What determines every byte of the set; stored as its request.
        pde: The equation.
        grid: The grid.
        reader: The samples.
        parameters: The parameters of file and settings.
        numbers: The sample numbers of each split.
        progress: Called with "writing", the samples done and the total after each shard.

    Returns:
        The manifest of the set.
    """
    check_request(root, recipe, "out")
    if (root / "manifest.json").exists():
        manifest = load_manifest(root)
        check_wanted(manifest, root, pde.name, grid.describe())
        check_set(manifest, root)
        return manifest
    shards: list[FinishedShard] = []
    done = 0
    total = sum(map(len, numbers.values()))
    size = recipe["samples_per_shard"]
    with hold_set(root, recipe, "out"):
        for split, chosen in numbers.items():
            for shard, first in enumerate(range(0, len(chosen), size)):
                part = chosen[first : first + size]
                samples = _samples(pde, grid, reader, parameters, part, FIRST_COUNTER[split], first)
                shards.append(ensure_shard(root, split, shard, len(part), samples))
                done += len(part)
                if progress is not None:
                    progress("writing", done, total)
        manifest = build_manifest(pde, grid, recipe, shards, f"check that array of {reader.source.path}")
        publish_manifest(root, manifest)
    return manifest


def _samples(
    pde: Pde, grid: Grid, reader: SampleReader, parameters: Parameters, numbers: Sequence[int], base: int, first: int
) -> Iterator[Sample]:
    """Yield the samples of one shard, the first of which is sample `first` of its split, with their residuals."""
    at = first
    files = {path: i for i, (path, _) in enumerate(reader.source.files)}
    for block, fields in reader.blocks(numbers):
        varying = np.array([[parameters.of(number)[name] for name in pde.varying] for number in block])
        norms = truth_residuals(pde, grid, fields, varying)
        for i, number in enumerate(block):
            residual = {name: float(f"{values[i]:.6g}") for name, values in norms.items()}
            if not np.isfinite(list(residual.values())).all():
                low = float(fields[i].min())
                high = float(fields[i].max())
                raise UserError(
                    f"{reader.source.sample_name(number)} has a residual beyond float32, its values go from {low:.4g} to "
                    f"{high:.4g}; check scale and pde.params"
                )
            path, local = reader.source.locate(number)
            # `source`: the sample's number in its file; `file`, of several: the number of the file in the request
            meta = {"seed": base + at, "source": local, "params": parameters.of(number), "residual": residual}
            meta |= {"file": files[path]} if files else {}
            yield sample_key(at), fields[i], meta
            at += 1
