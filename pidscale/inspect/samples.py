"""Reads every sample of a set as training does and checks its values, its seed and, for some samples, the stored residual.

Must not know models or training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pidscale.config import UserError, distinct
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.pde.residuals import floor_of, truth_residuals
from pidscale.records.audit import capped
from pidscale.records.json_checks import is_number
from pidscale.records.manifest import Manifest
from pidscale.records.read import ShardSet
from pidscale.records.stores.base import Store
from pidscale.records.stores.folder import Folder

_RECOMPUTED = 64  # samples of a split whose residual is computed again
_CHUNK_BYTES = 2**25  # fields whose residual is computed together
_SAME = 1e-3  # largest relative difference of a stored residual from a computed one
_SAME_FLOOR = 1e-6  # largest relative difference of a floor in the manifest from that of the stored residuals
_SLACK = 4  # a residual may differ by this many times the float32 rounding that is seen on the same samples
_REMEDY = "restore the file or make the set again"


class SampleChecker:
    """Checks the samples of a set, one split after another.

    Attributes:
        findings: One line for each thing that is wrong.
        notes: One line for each thing that was not checked.
        samples: The number of samples that were read and are correct.
    """

    findings: list[str]
    notes: list[str]
    samples: int

    def __init__(self, store: Store, manifest: Manifest, equation: tuple[Pde, Grid] | None) -> None:
        """Prepare to check.

        Args:
            store: The store that holds the set.
            manifest: The manifest of the set.
            equation: Equation and grid that residuals are computed with; None to skip residuals.
        """
        self.store = store
        self.manifest = manifest
        self.equation = equation
        self.findings = []
        self.notes = []
        self.samples = 0
        self._seeds: dict[int, str] = {}
        self._wrong_residuals: list[str] = []
        self._pending: list[tuple[str, np.ndarray, np.ndarray, dict[str, Any]]] = []

    def check_split(self, split: str, readable: Sequence[bool], progress: Callable[[int, int], None]) -> None:
        """Read and check a split. Raises UserError if a remote store does not answer.

        Args:
            split: The name of the split.
            readable: Which of its shards can be read.
            progress: Called with the samples done and the total.
        """
        shards = ShardSet(self.store, split, refuse_damaged=False)
        count = min(len(shards), _RECOMPUTED)
        recomputed = set(np.linspace(0, len(shards) - 1, count).round().astype(int).tolist())
        stored: list[dict[str, Any]] = []
        first = 0
        for entry, can_read in zip(shards.split.shards, readable, strict=True):
            where = self.store.where(entry.name)
            wrong: list[str] = []
            for n in range(first, first + entry.samples):
                if can_read:
                    wrong += self._check_sample(shards, split, n, n in recomputed, stored, f"{where}: sample {n}")
                progress(n + 1, len(shards))
            self.findings += capped(wrong, where)
            first += entry.samples
        self._check_residuals()
        manifest = self.store.where("manifest.json")
        self.findings += capped(self._wrong_residuals, f"{manifest}: residuals of split '{split}'")
        self._wrong_residuals = []
        if unread := sum(e.samples for e, can_read in zip(shards.split.shards, readable, strict=True) if not can_read):
            self.notes.append(f"{manifest}: {unread} samples of split '{split}' not read: their shards are damaged")
        elif len(stored) == len(shards):
            floors: Any = self.manifest.truth_residual.get(split)
            floors = floors if isinstance(floors, dict) else {}
            self.findings += [f"{manifest}: {line}; {_REMEDY}" for line in _floor_findings(split, stored, floors)]

    def _check_sample(
        self, shards: ShardSet, split: str, n: int, recompute: bool, stored: list[dict[str, Any]], where: str
    ) -> list[str]:
        """Return what is wrong with a sample; adds its residual to `stored`."""
        try:
            fields = shards.read([n])
            meta = shards.meta(n)
            params = shards.params([n], () if self.equation is None else self.equation[0].varying)
        except UserError as error:
            if not isinstance(self.store, Folder):
                self.store.sizes()  # raises if the store is away, which ends the whole check
            return [str(error)]
        found = []
        seed = meta.get("seed")
        residual = meta.get("residual")
        low, high = shards.split.seeds
        if not isinstance(seed, int) or not low <= seed < high:
            found.append(f"{where}: seed {seed!r}, manifest.json says {low} to {high - 1}; make the set again")
        elif (other := self._seeds.setdefault(seed, f"{split} sample {n}")) != f"{split} sample {n}":
            found.append(f"{where}: seed {seed} is that of {other} too; make the set again")
        if not isinstance(residual, dict) or not all(is_number(value) for value in residual.values()):
            found.append(f"{where}: its residual is {residual!r}, expected a number for each norm; make the set again")
        else:
            stored.append(residual)
            if recompute and self.equation is not None:
                self._pending.append((where, fields, params, residual))
                if len(self._pending) * fields.nbytes >= _CHUNK_BYTES:
                    self._check_residuals()
        self.samples += not found
        return found

    def _check_residuals(self) -> None:
        """Compute the residuals of the pending samples and compare them with the stored ones."""
        pending = self._pending
        self._pending = []
        if self.equation is None or not pending:
            return
        pde, grid = self.equation
        fields, params = (np.concatenate([one[i] for one in pending]) for i in (1, 2))
        try:
            single = truth_residuals(pde, grid, fields, params)
            double = truth_residuals(pde, grid, fields.astype(np.float64), params)
        except Exception as error:  # a user's own equation may fail in any way
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            line = f"{pending[0][0]} and others: residual not checked: {reason}"
            (self.notes if ":" in pde.name else self.findings).append(line)
            return
        for norm, values in single.items():
            slack = max(float(np.finfo(np.float32).eps), _SLACK * float(abs(values - double[norm]).max()))
            for (where, *_, residual), value in zip(pending, values.tolist(), strict=True):
                stated = residual.get(norm, math.nan)
                if not abs(stated - value) <= max(_SAME * value, slack):
                    true, said = distinct(value, stated, digits=6)
                    self._wrong_residuals.append(
                        f"{where}: residual {norm} is {true}, its JSON says {said}; other fields, parameters or "
                        "program; make the set again"
                    )


def _floor_findings(split: str, stored: Sequence[dict[str, Any]], floors: dict[str, float]) -> list[str]:
    """Compare the floors of a manifest with the stored residuals: root mean square and, under max_, the largest."""
    norms = stored[0] if stored else ()
    true = floor_of({norm: [one.get(norm, math.nan) for one in stored] for norm in norms})
    return [
        f"truth_residual of '{split}': {key} is {floors.get(key)!r}, that of its samples {value!r}"
        for key, value in true.items()
        if not (is_number(floors.get(key)) and abs(floors[key] - value) <= _SAME_FLOOR * value)
    ]
