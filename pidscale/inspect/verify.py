"""Checks everything that can be checked of a set: files, samples, normaliser, seeds, and residuals of what is stored.

Only reads. Must not know models or training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from pidscale.config import UserError, distinct
from pidscale.inspect.samples import SampleChecker
from pidscale.inspect.show import finish_command
from pidscale.ops.grid import Grid
from pidscale.pde import stored_pde
from pidscale.pde.base import Pde
from pidscale.pde.own import is_own
from pidscale.records.audit import ShardAudit, apart, audit_shard
from pidscale.records.check import load_manifest
from pidscale.records.format import index_name
from pidscale.records.json_checks import read_json
from pidscale.records.manifest import ChannelInfo, Manifest
from pidscale.records.repair import planned_shards
from pidscale.records.stores.base import Store
from pidscale.records.stores.folder import Folder
from pidscale.records.stores.opening import open_store
from pidscale.records.survey import manifest_findings, strays
from pidscale.records.write import finished_shard, merge_stats

_SAME = 1e-6  # largest relative difference of the normaliser from that of the data
_PATIENCE = 60.0  # seconds for which a remote store may be away

Progress = Callable[[str, int, int], None]  # the stage, how much of it is done, the total


@dataclass
class VerifyReport:
    """What was found in a set.

    Attributes:
        where: The folder or address of the set.
        findings: One line for each thing that is wrong.
        notes: One line for each thing that was not checked, and for files that do not belong to the set.
        samples: The number of samples that were read and are correct.
        bytes: The size of the shards that were read, with their indices.
        seconds: The time that it took.
    """

    where: str
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """The report in one line."""
        found = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        return f"{self.where}: {self.samples} samples, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s, {found}"


def verify(path: str | Path, progress: Progress | None = None, equation: str | None = None) -> VerifyReport:
    """Check a set in a folder or at an address. What is wrong with it is listed, never raised.

    Residuals of a user's own equation are checked only if its module is already imported.

    Args:
        path: The folder or address of the set.
        progress: Called with the stage, how much of it is done, and the total.
        equation: The name of the equation that the set should have; None for any.

    Returns:
        The report.
    """
    began = time.monotonic()
    report = VerifyReport(str(path))
    try:
        store = open_store(path, _PATIENCE)
        try:
            _SetChecker(store, report, progress or (lambda stage, done, total: None), equation).run()
        finally:
            store.close()
    except UserError as error:  # no such folder, or a store that is away: nothing else can be checked
        report.findings.append(str(error))
    except OSError as error:
        report.findings.append(
            f"{error.filename or path}: {error.strerror or error}; check the file and its permissions"
        )
    report.seconds = time.monotonic() - began
    return report


class _SetChecker:
    """Checks one set and adds to its report."""

    def __init__(self, store: Store, report: VerifyReport, progress: Progress, expected: str | None) -> None:
        self.store = store
        self.report = report
        self.progress = progress
        self.expected = expected

    def run(self) -> None:
        """Run all checks in order: files before samples, samples before what is computed from them."""
        sizes = self.store.sizes()
        try:
            manifest = load_manifest(self.store) if "manifest.json" in sizes else None
        except UserError as error:
            self.report.findings.append(str(error))
            manifest = None
        if manifest is None:
            self._check_unfinished(sizes)
            return
        self.report.findings += manifest_findings(manifest, self.store, sizes)
        self.report.notes += strays(manifest, self.store, sizes)
        if "request.json" not in sizes:
            self._note("request.json", "missing; manifest.json holds the request too")
        audits = self._check_shards(manifest, sizes)
        self._check_normaliser(manifest, audits.get("train", []))
        checker = SampleChecker(self.store, manifest, self._equation(manifest))
        try:
            for split in manifest.splits:
                readable = [audit.readable for audit in audits[split]]
                checker.check_split(split, readable, partial(self.progress, f"{split} samples"))
        finally:  # also if a remote store stops to answer
            self.report.findings += checker.findings
            self.report.notes += checker.notes
            self.report.samples = checker.samples
        if "train" not in manifest.splits:
            self._find("manifest.json", "no split 'train', on which the normaliser is measured; make the set again")

    def _find(self, name: str, line: str) -> None:
        self.report.findings.append(f"{self.store.where(name)}: {line}")

    def _note(self, name: str, line: str) -> None:
        self.report.notes.append(f"{self.store.where(name)}: {line}")

    def _check_shards(self, manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, list[ShardAudit]]:
        """Check every file of every shard; return the audits of each split."""
        audits: dict[str, list[ShardAudit]] = {}
        done = 0
        total = sum(len(split.shards) for split in manifest.splits.values())
        for name, split in manifest.splits.items():
            audits[name] = []
            first = 0
            for entry in split.shards:
                audit = audit_shard(self.store, entry, sizes, manifest.shape, first)
                audits[name].append(audit)
                self.report.findings += audit.findings
                self.report.bytes += sizes.get(entry.name, 0) + sizes.get(index_name(entry.name), 0)
                first += entry.samples
                done += 1
                self.progress("shards", done, total)
        return audits

    def _check_normaliser(self, manifest: Manifest, audits: Sequence[ShardAudit]) -> None:
        """Compare the normaliser with mean and standard deviation of the train split."""
        parts = [audit.stats for audit in audits if audit.stats is not None]
        if not parts or len(parts) < len(audits):
            self._note("manifest.json", "normaliser not compared with the data, a part of which cannot be read")
            return
        stats = merge_stats(parts)
        mean = np.array(stats.mean)
        std = np.array(stats.std)
        for key, true, scale in (("mean", mean, np.maximum(abs(mean), std)), ("std", std, std)):
            stated = manifest.normaliser[key]
            for c, channel in enumerate(manifest.channels):
                if not apart(stated[c : c + 1], true[c : c + 1], scale[c : c + 1]) <= _SAME:
                    own, data = distinct(stated[c], true[c], digits=9)
                    self._find(
                        "manifest.json",
                        f"normaliser.{key} of {channel.name} is {own}, that of the train split {data}; "
                        "restore the file or make the set again",
                    )

    def _equation(self, manifest: Manifest) -> tuple[Pde, Grid] | None:
        """Return equation and grid of the set; None, with a finding or a note, if residuals cannot be computed."""
        if self.expected not in (None, manifest.equation):
            self._find("manifest.json", f"a set of {manifest.equation}, not of {self.expected}; name another set")
            return None
        try:
            pde = stored_pde(self.store.where("manifest.json"), manifest.equation, manifest.params)
            grid = Grid.from_description(manifest.grid)
        except UserError as error:
            if is_own(manifest.equation):
                self.report.notes.append(f"residuals not checked: {error}")
            else:
                self.report.findings.append(str(error))
            return None
        except ValueError as error:
            self._find("manifest.json", f"{error}; restore the file or make the set again")
            return None
        channels = tuple(ChannelInfo(c.name, c.unit, c.role) for c in pde.channels)
        if channels != manifest.channels:
            names = ", ".join(f"{c.name} [{c.unit}] {c.role}" for c in channels)
            self._find("manifest.json", f"channels are not those of {pde.name} ({names}); make the set again")
            return None
        if "endpoints" in manifest.request:
            self._note("manifest.json", "residuals not checked: endpoints are in the units of their teacher's model")
            return None
        return pde, grid

    def _check_unfinished(self, sizes: Mapping[str, int]) -> None:
        """Report how much of a set without a valid manifest is finished, and how to finish it."""
        missing = "manifest.json" not in sizes
        if not isinstance(self.store, Folder) or "request.json" not in sizes:
            if missing:
                self._find("manifest.json", "missing, and no request.json: not a shard set; name another folder")
            self._note("manifest.json", "nothing else was checked, because there is no manifest")
            return
        try:
            request = read_json(self.store.root / "request.json")
            planned = planned_shards(request, self.store.where("request.json"))
        except UserError as error:
            if missing:
                self._find("manifest.json", "missing: the set is unfinished")
            self.report.findings.append(str(error))
            return
        finished = 0
        for done, (name, (_, count)) in enumerate(planned.items(), 1):
            finished += self._check_unlisted_shard(self.store, name, count, sizes)
            self.progress("shards", done, len(planned))
        state = f"{finished} of {len(planned)} shards are finished ({self.report.samples} samples)"
        command = finish_command(request, str(self.store.root))
        if missing:
            self._find("manifest.json", f"missing: the set is unfinished, {state}; finish it with {command}")
        else:
            self._note("manifest.json", f"{state}; delete it and write it again with {command}")

    def _check_unlisted_shard(self, store: Folder, name: str, count: int, sizes: Mapping[str, int]) -> bool:
        """Return whether a shard of `count` samples that no manifest lists is finished; report it otherwise."""
        self.report.bytes += sizes.get(name, 0) + sizes.get(index_name(name), 0)
        split, number = name.removesuffix(".tar").rsplit("-", 1)
        if name not in sizes:
            return False
        if finished_shard(store.root, split, int(number), count) is not None:
            self.report.samples += count
            return True
        if index_name(name) not in sizes:
            self._find(
                name, "has no index; run `pidscale shards repair-index`, or finish the set, which makes the shard again"
            )
        else:
            self._find(name, "is truncated, or does not match its index; finishing the set makes it again")
        return False
