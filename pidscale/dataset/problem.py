"""The problem of a run, from its shard set: equation, grid and units, checked against the settings.

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
    """An equation with grid and units, and the shard set that they come from.

    Example::

        problem = open_problem(settings.pde, settings.data)
        samples = problem.samples("train", 16)  # fields [16, C, Y, X] and parameters [16, P]

    Attributes:
        pde: The equation.
        grid: The grid of the fields.
        normaliser: Mean and standard deviation of each channel.
        manifest: The manifest of the set.
        data: The settings of the set.
        omitted: The stored numbers of samples that are omitted, by split.
    """

    pde: Pde
    grid: Grid
    normaliser: Normaliser
    manifest: Manifest
    data: DataSettings
    omitted: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, Y, X) of a joint field."""
        return (len(self.pde.channels), *self.grid.shape)

    def shards(self, split: str, whole: bool = True) -> ShardSet:
        """Open a split. Raises UserError if the set has no such split.

        Args:
            split: The name of the split.
            whole: Whether to refuse a split with a missing or truncated shard. A split with omitted samples is never refused.

        Returns:
            The open split, without the omitted samples.
        """
        omitted = self.omitted.get(split, ())
        return ShardSet(self._store, split, self.data.verify, omitted, whole and not omitted, self.manifest)

    @property
    def _store(self) -> Store:
        """The store that holds the set."""
        store = open_store(self.data.path, self.data.patience)
        if self.data.cache is None or not is_address(self.data.path):
            return store
        return Cache(store, self.manifest, self.data.cache, int(self.data.cache_gib * 2**30))

    def samples(self, split: str, limit: int, rows: slice | None = None, whole: bool = True) -> Samples:
        """Read the first samples of a split.

        Args:
            split: The name of the split.
            limit: The largest number of samples; a split may have fewer.
            rows: The rows that are read; None for all.
            whole: Whether to look at all shards of the split first, as `shards` does.

        Returns:
            Fields [n, C, y, X] in physical units, with the varying parameters [n, P].
        """
        shards = self.shards(split, whole)
        ids = range(min(limit, len(shards)))
        return Samples(torch.from_numpy(shards.read(ids, rows)), read_params(shards, self, ids))

    def held_out(self, limit: int, rows: slice | None = None) -> Samples:
        """Read samples to compare generated ones with: of the test split, or of train if the set has no test split.

        Looks at no other shard than theirs: a training calls it while its other ranks wait.
        """
        split = "test" if "test" in self.manifest.splits else "train"
        return self.samples(split, limit, rows, whole=False)


def open_problem(pde_settings: PdeSettings, data: DataSettings) -> Problem:
    """Open the shard set of a run and check it against the settings.

    Args:
        pde_settings: The equation, its parameters and its number of points.
        data: Where the set is.

    Returns:
        The problem.

    Raises:
        UserError: The set holds endpoints, or has another equation, other parameters or another grid.
    """
    pde = build_pde(pde_settings.name, pde_settings.params)
    manifest = load_manifest(open_store(data.path, data.patience))
    if "endpoints" in manifest.request:
        raise UserError(
            f"{data.path}/manifest.json: holds endpoints of a teacher, in the units of its model; use it as "
            "distill.endpoints, not as data.path"
        )
    if pde_settings.points is None:
        grid = Grid.from_description(manifest.grid)
        own = pde.grid(32)
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
    normaliser = Normaliser(tuple(manifest.normaliser["mean"]), tuple(manifest.normaliser["std"]))
    return Problem(pde, grid, normaliser, manifest, data)


def read_params(shards: ShardSet, problem: Problem, ids: Sequence[int] | np.ndarray) -> Tensor:
    """Read the varying parameters of samples.

    Args:
        shards: An open split of the problem's set.
        problem: The problem.
        ids: The numbers of the samples in the split.

    Returns:
        Parameters, float64 [B, P].

    Raises:
        UserError: A sample has no value of a parameter, or one outside its range.
    """
    params = shards.params(ids, problem.pde.varying)
    for column, (name, (low, high)) in zip(params.T, problem.pde.varying.items(), strict=True):
        slack = SLACK * max(abs(low), abs(high))
        outside = (column < low - slack) | (column > high + slack)
        if outside.any():
            first = int(np.argmax(outside))
            raise UserError(
                f"{shards.where}: sample {ids[first]} has {name}={exact(column[first])}, the settings say "
                f"{exact(low)} to {exact(high)}; change pde.params, or make the set again"
            )
    return torch.from_numpy(params)
