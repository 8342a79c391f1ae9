"""Every sample of a set read as training reads it: values, seeds, and the residual of some against the one that is stored.

Must not know models or training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.pde.residuals import floor_of, truth_residuals
from pidscale.records.audit import capped
from pidscale.records.json_checks import is_number
from pidscale.records.manifest import Manifest
from pidscale.records.read import ShardSet
from pidscale.records.stores.base import Store
from pidscale.records.stores.folder import Folder

_CHOSEN = 64  # samples of a split whose residual is taken anew
_CHUNK_BYTES = 2**25  # fields whose residual is taken together
_SAME = 1e-3  # relative difference of a stored residual from one that is taken anew
_SAME_FLOOR = 1e-6  # relative difference of a floor of the manifest from that of the stored residuals
_SLACK = 4  # how many times the rounding of float32, as it is seen on these samples, a residual may be off
_AGAIN = "restore the file or make the set again"


class Recheck:
    """The samples of a set. findings, notes: one line each. samples: how many were read and true.

    equation: what the residual is taken with, None to leave it.
    """

    def __init__(self, store: Store, manifest: Manifest, equation: tuple[Pde, Grid] | None) -> None:
        self.store, self.manifest, self.equation = store, manifest, equation
        self.findings: list[str] = []
        self.notes: list[str] = []
        self.samples = 0
        self._seeds: dict[int, str] = {}
        self._off: list[str] = []
        self._waiting: list[tuple[str, np.ndarray, np.ndarray, dict[str, Any]]] = []

    def run(self, split: str, readable: Sequence[bool], progress: Callable[[int, int], None]) -> None:
        """Read a split. readable: which of its shards can be asked for. UserError where a remote store does not answer."""
        shards = ShardSet(self.store, split, refuse_damaged=False)
        chosen = set(np.linspace(0, len(shards) - 1, min(len(shards), _CHOSEN)).round().astype(int).tolist())
        first, stored = 0, list[dict[str, Any]]()
        for entry, some in zip(shards.split.shards, readable, strict=True):
            where, wrong = self.store.where(entry.name), list[str]()
            for n in range(first, first + entry.samples):
                if some:
                    wrong += self._sample(shards, split, n, n in chosen, stored, f"{where}: sample {n}")
                progress(n + 1, len(shards))
            self.findings += capped(wrong, where)
            first += entry.samples
        self._flush()
        manifest = self.store.where("manifest.json")
        self.findings += capped(self._off, f"{manifest}: residuals of split '{split}'")
        self._off = []
        if unread := sum(e.samples for e, some in zip(shards.split.shards, readable, strict=True) if not some):
            self.notes.append(
                f"{manifest}: {unread} samples of split '{split}' not read, for their shards are not true"
            )
        elif len(stored) == len(shards):
            floors: Any = self.manifest.truth_residual.get(split)
            floors = floors if isinstance(floors, dict) else {}
            self.findings += [f"{manifest}: {said}; {_AGAIN}" for said in _floor_findings(split, stored, floors)]

    def _sample(
        self, shards: ShardSet, split: str, n: int, chosen: bool, stored: list[dict[str, Any]], where: str
    ) -> list[str]:
        """What is wrong with a sample."""
        try:
            fields, meta = shards.read([n]), shards.meta(n)
            pde = None if self.equation is None else self.equation[0]
            params = shards.params([n], () if pde is None else pde.varying)
        except UserError as error:
            if not isinstance(self.store, Folder):
                self.store.sizes()  # a store that is away ends everything here
            return [str(error)]
        found = []
        seed, residual, (low, high) = meta.get("seed"), meta.get("residual"), shards.split.seeds
        if not isinstance(seed, int) or not low <= seed < high:
            found.append(f"{where}: seed {seed!r}, manifest.json says {low} to {high - 1}; make the set again")
        elif (other := self._seeds.setdefault(seed, f"{split} sample {n}")) != f"{split} sample {n}":
            found.append(f"{where}: seed {seed} is that of {other} too; make the set again")
        if not isinstance(residual, dict) or not all(is_number(value) for value in residual.values()):
            found.append(f"{where}: its residual is {residual!r}, expected a number for each norm; make the set again")
        else:
            stored.append(residual)
            if chosen and self.equation is not None:
                self._waiting.append((where, fields, params, residual))
                if len(self._waiting) * fields.nbytes >= _CHUNK_BYTES:
                    self._flush()
        self.samples += not found
        return found

    def _flush(self) -> None:
        """Take the residuals of the samples that wait."""
        waiting, self._waiting = self._waiting, []
        if self.equation is None or not waiting:
            return
        pde, grid = self.equation
        fields, params = (np.concatenate([one[i] for one in waiting]) for i in (1, 2))
        try:
            single = truth_residuals(pde, grid, fields, params)
            double = truth_residuals(pde, grid, fields.astype(np.float64), params)
        except Exception as error:  # an equation of the user's own may fail in any way
            said = f"{waiting[0][0]} and others: residual not checked: {type(error).__name__}: {' '.join(str(error).split())}"
            (self.notes if ":" in pde.name else self.findings).append(said)
            return
        for norm, values in single.items():
            slack = max(float(np.finfo(np.float32).eps), _SLACK * float(abs(values - double[norm]).max()))
            for (where, *_, residual), value in zip(waiting, values.tolist(), strict=True):
                stated = residual.get(norm, math.nan)
                if not abs(stated - value) <= max(_SAME * value, slack):
                    said = f"residual {norm} is {value:.6g}, its JSON says {stated:.6g}"
                    self._off.append(f"{where}: {said}; other fields, parameters or program; make the set again")


def _floor_findings(split: str, stored: Sequence[dict[str, Any]], floors: dict[str, float]) -> list[str]:
    """What the floors of a manifest say that its samples do not: rms and, under max_, the largest of each norm."""
    norms = stored[0] if stored else ()
    true = floor_of({norm: [one.get(norm, math.nan) for one in stored] for norm in norms})
    return [
        f"truth_residual of '{split}': {key} is {floors.get(key)!r}, that of its samples {value:.6g}"
        for key, value in true.items()
        if not (is_number(floors.get(key)) and abs(floors[key] - value) <= _SAME_FLOOR * value)
    ]
