"""The problem a run is about, from its shard set: equation, grid and units, checked against the settings.

Knows no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pidscale.config import DataSettings, PdeSettings, UserError, exact
from pidscale.diffusion.normaliser import Normaliser
from pidscale.ops.grid import Grid
from pidscale.paths import is_address
from pidscale.pde import build_pde
from pidscale.pde.base import Pde, Samples
from pidscale.pde.parameters import SLACK
from pidscale.records.check import check_wanted, load_manifest
from pidscale.records.manifest import Manifest
from pidscale.records.read import ShardSet
from pidscale.records.stores.base import Store
from pidscale.records.stores.cache import Cache
from pidscale.records.stores.opening import open_store


@dataclass(frozen=True)
class Problem:
    """Equation, grid, units, and the set they come from; without: stored numbers by split of samples that are left out."""

    pde: Pde
    grid: Grid
    normaliser: Normaliser
    manifest: Manifest
    data: DataSettings
    without: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, Y, X) of a joint field."""
        return (len(self.pde.channels), *self.grid.shape)

    def shards(self, split: str, whole: bool = True) -> ShardSet:
        """A split, open to be read. whole: refuse a set of which a shard is missing or cut."""
        left_out = self.without.get(split, ())
        return ShardSet(self._store, split, self.data.verify, left_out, whole and not left_out, self.manifest)

    @property
    def _store(self) -> Store:
        """Where the set lies."""
        data, store = self.data, open_store(self.data.path, self.data.patience)
        if data.cache is None or not is_address(data.path):
            return store
        return Cache(store, self.manifest, data.cache, int(data.cache_gib * 2**30))

    def samples(self, split: str, most: int, rows: slice | None = None) -> Samples:
        """The first samples of a split, at most so many, in physical units. rows: those that are read, all if None."""
        shards = self.shards(split)
        ids = range(min(most, len(shards)))
        return Samples(torch.from_numpy(shards.read(ids, rows)), read_params(shards, self, ids))

    def held_out(self, most: int, rows: slice | None = None) -> Samples:
        """Samples to show beside generated ones: of the test split, or of train where a set has no other."""
        return self.samples("test" if "test" in self.manifest.splits else "train", most, rows)


def open_problem(pde_settings: PdeSettings, data: DataSettings) -> Problem:
    """Open the shard set and check it. Raises UserError for another equation, other parameters or another grid."""
    pde = build_pde(pde_settings.name, pde_settings.params)
    manifest = load_manifest(open_store(data.path, data.patience))
    if "endpoints" in manifest.request:
        raise UserError(
            f"{data.path}/manifest.json: endpoints of a teacher, in the units of its model; they are for distill.endpoints"
        )
    if pde_settings.points is None:
        grid, own = Grid.from_description(manifest.grid), pde.grid(32)
        check_wanted(manifest, data.path, pde.name, {"kind": own.kind, "boundary": own.boundary})
    else:
        grid = pde.grid(pde_settings.points)
        check_wanted(manifest, data.path, pde.name, grid.describe())
    for key, value in pde.params_dict().items():
        if manifest.params.get(key) != value:
            raise UserError(
                f"{data.path}/manifest.json: made with pde.params.{key}={manifest.params.get(key)!r}, "
                f"the settings say {value!r}; change one of them, or choose another data.path"
            )
    mean, std = manifest.normaliser["mean"], manifest.normaliser["std"]
    return Problem(pde, grid, Normaliser(tuple(mean), tuple(std)), manifest, data)


def read_params(shards: ShardSet, problem: Problem, ids: Sequence[int] | np.ndarray) -> Tensor:
    """The varying parameters of samples, float64 [B, P]. Raises UserError for a missing one, or one outside its range."""
    params = shards.params(ids, problem.pde.varying)
    for column, (name, (low, high)) in zip(params.T, problem.pde.varying.items(), strict=True):
        slack = SLACK * max(abs(low), abs(high))
        outside = (column < low - slack) | (column > high + slack)
        if outside.any():
            first = int(np.argmax(outside))
            raise UserError(
                f"{shards.where}: sample {ids[first]} has {name}={exact(column[first])}, the settings say "
                f"{exact(low)} to {exact(high)}; "
                "change pde.params, or make the set again"
            )
    return torch.from_numpy(params)
