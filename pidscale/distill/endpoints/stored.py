"""Endpoints as an ordinary shard set: made once, read by every student of the same teacher.

Sample n of the set is the endpoint of counter n, its fields in the units of the model, so that they are bit by bit what the
teacher made. The manifest's request says `endpoints`: which teacher, solver, steps, precision and seed. Knows no ranks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pidscale.config import DataSettings, Settings, UserError
from pidscale.dataset.publish import FinishedShard, ensure_shard
from pidscale.distill.endpoints.buffer import RowOrder
from pidscale.distill.endpoints.endpoint import Endpoints, checksum
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.paths import is_address
from pidscale.pde.residuals import truth_residuals
from pidscale.records.check import load_manifest
from pidscale.records.format import VERSION, sample_key
from pidscale.records.json_checks import canonical
from pidscale.records.read import ShardSet
from pidscale.records.stores.opening import open_store
from pidscale.records.write import Sample
from pidscale.seeds import ROW_BLOCK

SPLIT, KEY = "train", "distill.endpoints"


def described(settings: Settings, rollout: Rollout) -> dict[str, Any]:
    """Return what decides every endpoint, as plain JSON values."""
    d = settings.distill
    return {
        "teacher": rollout.teacher.card.weights_sha256,
        "solver": rollout.solver,
        "steps": rollout.steps,
        "precision": d.teacher_precision,
        "seed": rollout.seed,
    }


def needed(settings: Settings) -> int:
    """Return how many endpoints a distillation asks for, from counter 0 on."""
    d = settings.distill
    order = RowOrder(d.buffer_rows, d.reuse, d.global_batch, 0, d.global_batch, settings.run.seed)
    return order.rows_before(d.steps) * d.global_batch


def request(settings: Settings, rollout: Rollout, count: int, per_shard: int) -> dict[str, Any]:
    """Return what decides every byte of a set of endpoints.

    Args:
        settings: Those of the run.
        rollout: Makes the endpoints.
        count: How many.
        per_shard: Endpoints of a shard.

    Returns:
        The request of the set's manifest, plain JSON values.
    """
    pde, grid = rollout.teacher.pde, rollout.teacher.grid
    what = {"format": VERSION, "equation": pde.name, "params": pde.params_dict(), "grid": grid.describe()}
    how = {"endpoints": described(settings, rollout), "chunk": rollout.chunk, "units": "model"}
    plain: dict[str, Any] = json.loads(
        canonical({**what, **how, "samples": {SPLIT: count}, "samples_per_shard": per_shard})
    )
    return plain


def make_shard(rollout: Rollout, root: str, number: int, first: int, last: int) -> FinishedShard:
    """Make one shard of a set, or take the intact one that an earlier run left.

    Args:
        rollout: Makes the endpoints.
        root: Folder of the set.
        number: Of the shard.
        first: Counter of its first endpoint.
        last: The counter after its last one.

    Returns:
        The finished shard.
    """
    return ensure_shard(root, SPLIT, number, last - first, _samples(rollout, first, last))


def _samples(rollout: Rollout, first: int, last: int) -> Iterator[Sample]:
    """A chunk at a time; the last one is filled up, and what fills it is omitted."""
    pde, units = rollout.teacher.pde, rollout.teacher.normaliser
    for start in range(first, last, rollout.chunk):
        made = rollout.endpoints(torch.arange(start, start + rollout.chunk))
        fields = made.fields_BCYX.cpu()
        norms = truth_residuals(pde, rollout.teacher.grid, units.decode(fields).numpy(), made.params_BP.numpy())
        for i in range(min(rollout.chunk, last - start)):
            params = dict(zip(pde.varying, made.params_BP[i].tolist(), strict=True))
            residual = {name: float(f"{values[i]:.6g}") for name, values in norms.items()}
            meta = {"seed": start + i, "params": params, "residual": residual, "noise": int(made.checksums[i])}
            yield sample_key(start + i), np.ascontiguousarray(fields[i].numpy()), meta


@dataclass(frozen=True)
class EndpointSet:
    """A finished set, open for reading.

    Attributes:
        rollout: The teacher that made it, for its noise and parameters.
        shards: The set.
        rows: Rows of this rank; None: all.
    """

    rollout: Rollout
    shards: ShardSet
    rows: slice | None

    def endpoints(self, counters: Tensor) -> Endpoints:
        """Return endpoints as the teacher made them. One that is damaged, or of other noise, is a UserError."""
        sums = self._noise(counters)
        if self.rows not in (None, slice(0, self.rollout.teacher.grid.shape[0])):
            sums = checksum(self.rollout.eps(counters))
        fields = torch.from_numpy(self.shards.read(counters.numpy(), self.rows)).to(self.rollout.teacher.device)
        return Endpoints(counters, self.rollout.params(counters), fields, sums)

    def _noise(self, counters: Tensor) -> Tensor:
        """Checksums of whole noise, once they are proven to be those of the set. UserError where one is not.

        The set stores the checksum of whole noise, which is that of its blocks of rows added up: none holds it whole.
        """
        height = self.rollout.teacher.grid.shape[0]
        found = torch.zeros(len(counters), dtype=torch.int64)
        for start in range(0, height, ROW_BLOCK):
            block = replace(self.rollout, rows=slice(start, min(start + ROW_BLOCK, height)))
            found += checksum(block.eps(counters)).cpu()
        for counter, own in zip(counters.tolist(), found.tolist(), strict=True):
            if self.shards.meta(counter).get("noise") != own:
                raise UserError(f"{self.shards.where}: sample {counter} is not of this run's noise; make the set again")
        return found


def open_set(settings: Settings, rollout: Rollout, data: DataSettings) -> EndpointSet:
    """Open the set that the settings name.

    Args:
        settings: Those of the run.
        rollout: The teacher, as the run would make endpoints.
        data: How a set is read.

    Returns:
        The set.

    Raises:
        UserError: There is none, it is of another teacher, solver or seed, or it is too small.
    """
    path = settings.distill.endpoints
    if path is None:
        raise UserError(f"{KEY}=null: distill.source=shards reads a set; make one with `pidscale make-endpoints`")
    store = open_store(path, data.patience)
    if not is_address(path) and not Path(store.where("manifest.json")).is_file():
        raise UserError(f"{KEY}={path}: no finished set of endpoints; make it with `pidscale make-endpoints`")
    manifest = load_manifest(store)
    found = manifest.request.get("endpoints")
    wanted = described(settings, rollout)
    where = store.where("manifest.json")
    if not isinstance(found, dict):
        raise UserError(f"{where}: holds no endpoints of a teacher; make some with `pidscale make-endpoints`")
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UserError(f"{where}: endpoints of {key} {found.get(key)!r}, this run wants {value!r}; change {KEY}")
    count = needed(settings)
    have = manifest.splits[SPLIT].samples
    if have < count:
        raise UserError(
            f"{where}: {have} endpoints, this run uses {count}; make them with `pidscale make-endpoints` and these settings, "
            "or raise distill.reuse"
        )
    return EndpointSet(rollout, ShardSet(store, SPLIT, data.verify, manifest=manifest), rollout.rows)
