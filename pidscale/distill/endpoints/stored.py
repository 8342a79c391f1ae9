"""Endpoints stored as an ordinary shard set, which is made once and read by every student of the same teacher.

Sample n of the set is the endpoint of counter n. Fields are stored in units of the model, so that they are bit-identical to
the teacher's output. The manifest's request records teacher, solver, steps, precision and seed under `endpoints`. Knows no
ranks.
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
    """Return the values that determine every endpoint, as plain JSON values."""
    d = settings.distill
    return {
        "teacher": rollout.teacher.card.weights_sha256,
        "solver": rollout.solver,
        "steps": rollout.steps,
        "precision": d.teacher_precision,
        "seed": rollout.seed,
    }


def needed(settings: Settings) -> int:
    """Return the number of endpoints that a distillation uses, from counter 0 on."""
    d = settings.distill
    order = RowOrder(d.buffer_rows, d.reuse, d.global_batch, 0, d.global_batch, settings.run.seed)
    return order.rows_before(d.steps) * d.global_batch


def request(settings: Settings, rollout: Rollout, count: int, per_shard: int) -> dict[str, Any]:
    """Return the values that determine every byte of a set of endpoints.

    Args:
        settings: Settings of the run.
        rollout: Teacher and solver that make the endpoints.
        count: Number of endpoints.
        per_shard: Number of endpoints in each shard.

    Returns:
        The request of the set's manifest, as plain JSON values.
    """
    pde, grid = rollout.teacher.pde, rollout.teacher.grid
    what = {"format": VERSION, "equation": pde.name, "params": pde.params_dict(), "grid": grid.describe()}
    how = {"endpoints": described(settings, rollout), "chunk": rollout.chunk, "units": "model"}
    plain: dict[str, Any] = json.loads(
        canonical({**what, **how, "samples": {SPLIT: count}, "samples_per_shard": per_shard})
    )
    return plain


def make_shard(rollout: Rollout, root: str, number: int, first: int, last: int) -> FinishedShard:
    """Make one shard of a set, or return an intact one that an earlier run has written.

    Args:
        rollout: Teacher and solver that make the endpoints.
        root: Folder of the set.
        number: Number of the shard.
        first: Counter of the first endpoint.
        last: Counter after the last endpoint.

    Returns:
        The finished shard.
    """
    return ensure_shard(root, SPLIT, number, last - first, _samples(rollout, first, last))


def _samples(rollout: Rollout, first: int, last: int) -> Iterator[Sample]:
    """Yield the samples of a shard, made one chunk at a time; the surplus endpoints of the last chunk are omitted."""
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
    """A finished set of endpoints, open for reading.

    Attributes:
        rollout: Teacher that made the set, for noise and parameters.
        shards: The shard set.
        rows: Rows of this rank; None for all rows.
    """

    rollout: Rollout
    shards: ShardSet
    rows: slice | None

    def endpoints(self, counters: Tensor) -> Endpoints:
        """Return stored endpoints. Raises UserError if one is damaged or was made from other noise."""
        sums = self._noise(counters)
        if self.rows not in (None, slice(0, self.rollout.teacher.grid.shape[0])):
            sums = checksum(self.rollout.eps(counters))
        fields = torch.from_numpy(self.shards.read(counters.numpy(), self.rows)).to(self.rollout.teacher.device)
        return Endpoints(counters, self.rollout.params(counters), fields, sums)

    def _noise(self, counters: Tensor) -> Tensor:
        """Return the noise checksums after verifying them against the set. Raises UserError if one differs.

        The set stores a checksum over all rows of the noise. It is the sum of the checksums of row blocks, so that no rank
        has to hold the whole noise.
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
    """Open the set `distill.endpoints`.

    Args:
        settings: Settings of the run.
        rollout: Teacher and solver with which the run would make endpoints.
        data: Settings for reading a set.

    Returns:
        The set.

    Raises:
        UserError: When the set is missing, is too small, or was made with another teacher, solver or seed.
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
