"""Everything that can be checked of a set: its files, every sample, the normaliser, the seeds, residuals of what is stored.

Reads only. Must not know models or training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from pidscale.config import UserError
from pidscale.inspect.samples import Recheck
from pidscale.inspect.show import how_to_finish
from pidscale.ops.grid import Grid
from pidscale.pde import stored_pde
from pidscale.pde.base import Pde
from pidscale.pde.own import is_own
from pidscale.records.audit import ShardAudit, apart, audit_shard
from pidscale.records.check import load_manifest
from pidscale.records.layout import ChannelInfo, Manifest, index_name, read_json
from pidscale.records.repair import planned_shards
from pidscale.records.stores.base import Store
from pidscale.records.stores.folder import Folder
from pidscale.records.stores.opening import open_store
from pidscale.records.survey import manifest_findings, strays
from pidscale.records.write import finished_shard, merge_stats

_SAME = 1e-6  # relative difference of the normaliser from that of the data
_PATIENCE = 60.0  # seconds for which a remote store may be away

Progress = Callable[[str, int, int], None]  # what is checked, how much of it is done, of how much


@dataclass
class Report:
    """What was found in a set: findings and notes, one line each; samples that were read and true, bytes, seconds."""

    where: str
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """The last line."""
        found = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        return f"{self.where}: {self.samples} samples, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s, {found}"


def verify(path: str | Path, progress: Progress | None = None, equation: str | None = None) -> Report:
    """Check all of a set in a folder or at an address; nothing is raised for what is wrong with it, all of it is listed.

    equation: the name of that which the set is expected to be of. Residuals of a user's own equation are checked where its
    module is imported already.
    """
    began, report = time.monotonic(), Report(str(path))
    try:
        store = open_store(path, _PATIENCE)
        try:
            _Verify(store, report, progress or (lambda stage, done, total: None), equation).run()
        finally:
            store.close()
    except UserError as error:  # no such folder, or a store that is away: there is nothing to go on with
        report.findings.append(str(error))
    except OSError as error:
        report.findings.append(
            f"{error.filename or path}: {error.strerror or error}; check the file and its permissions"
        )
    report.seconds = time.monotonic() - began
    return report


class _Verify:
    """One check of one set."""

    def __init__(self, store: Store, report: Report, progress: Progress, expected: str | None) -> None:
        self.store, self.report, self.progress, self.expected = store, report, progress, expected

    def run(self) -> None:
        """All checks in order: files before samples, samples before what is computed from them."""
        store = self.store
        sizes = store.sizes()
        try:
            manifest = load_manifest(self.store) if "manifest.json" in sizes else None
        except UserError as error:
            self.report.findings.append(str(error))
            manifest = None
        if manifest is None:
            self._unfinished(sizes)
            return
        self.report.findings += manifest_findings(manifest, self.store, sizes)
        self.report.notes += strays(manifest, self.store, sizes)
        if "request.json" not in sizes:
            self.report.notes.append(
                f"{self.store.where('request.json')}: missing; manifest.json holds the request too"
            )
        audits = self._shards(manifest, sizes)
        self._normaliser(manifest, audits.get("train", []))
        recheck = Recheck(self.store, manifest, self._equation(manifest))
        try:
            for split in manifest.splits:
                readable = [audit.readable for audit in audits[split]]
                recheck.run(split, readable, partial(self.progress, f"{split} samples"))
        finally:  # a store that went away in the middle
            self.report.findings += recheck.findings
            self.report.notes += recheck.notes
            self.report.samples = recheck.samples
        if "train" not in manifest.splits:
            self._found("manifest.json", "no split 'train', on which the normaliser is measured; make the set again")

    def _found(self, name: str, said: str) -> None:
        self.report.findings.append(f"{self.store.where(name)}: {said}")

    def _shards(self, manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, list[ShardAudit]]:
        """Every file of every shard, by split."""
        audits: dict[str, list[ShardAudit]] = {}
        done, total = 0, sum(len(split.shards) for split in manifest.splits.values())
        for name, split in manifest.splits.items():
            audits[name], first = [], 0
            for entry in split.shards:
                audits[name].append(audit_shard(self.store, entry, sizes, manifest.shape, first))
                self.report.findings += audits[name][-1].findings
                self.report.bytes += sizes.get(entry.name, 0) + sizes.get(index_name(entry.name), 0)
                first += entry.samples
                done += 1
                self.progress("shards", done, total)
        return audits

    def _normaliser(self, manifest: Manifest, audits: Sequence[ShardAudit]) -> None:
        parts = [audit.stats for audit in audits if audit.stats is not None]
        if not parts or len(parts) < len(audits):
            self.report.notes.append(
                f"{self.store.where('manifest.json')}: normaliser not held against the data, of which a part is unreadable"
            )
            return
        stats = merge_stats(parts)
        mean, std = np.array(stats.mean), np.array(stats.std)
        for key, true, scale in (("mean", mean, np.maximum(abs(mean), std)), ("std", std, std)):
            stated = manifest.normaliser[key]
            for c, channel in enumerate(manifest.channels):
                if not apart(stated[c : c + 1], true[c : c + 1], scale[c : c + 1]) <= _SAME:
                    said = (
                        f"normaliser.{key} of {channel.name} is {stated[c]:.9g}, that of the train split {true[c]:.9g}"
                    )
                    self._found("manifest.json", f"{said}; restore the file or make the set again")

    def _equation(self, manifest: Manifest) -> tuple[Pde, Grid] | None:
        """Equation and grid of the set, None (and why) where its residual cannot be taken."""
        where = self.store.where("manifest.json")
        if self.expected not in (None, manifest.equation):
            self._found("manifest.json", f"a set of {manifest.equation}, not of {self.expected}; name another set")
            return None
        try:
            pde = stored_pde(where, manifest.equation, manifest.params)
            grid = Grid.from_description(manifest.grid)
        except UserError as error:
            if is_own(manifest.equation):
                self.report.notes.append(f"residuals not checked: {error}")
            else:
                self.report.findings.append(str(error))
            return None
        except ValueError as error:
            self._found("manifest.json", f"{error}; restore the file or make the set again")
            return None
        channels = tuple(ChannelInfo(c.name, c.unit, c.role) for c in pde.channels)
        if channels != manifest.channels:
            names = ", ".join(f"{c.name} [{c.unit}] {c.role}" for c in channels)
            self._found("manifest.json", f"channels are not those of {pde.name} ({names}); make the set again")
            return None
        if "endpoints" in manifest.request:
            self.report.notes.append(
                f"{where}: residuals not checked: endpoints are in the units of their teacher's model"
            )
            return None
        return pde, grid

    def _unfinished(self, sizes: Mapping[str, int]) -> None:
        """How far a set without a true manifest is, and how to finish it."""
        where, report = self.store.where("manifest.json"), self.report
        missing = "manifest.json" not in sizes
        if not isinstance(self.store, Folder) or "request.json" not in sizes:
            if missing:
                self._found("manifest.json", "missing, and no request.json: not a shard set; name another folder")
            report.notes.append(f"{where}: nothing else was checked, for want of a manifest")
            return
        try:
            request = read_json(self.store.root / "request.json")
            planned = planned_shards(request, self.store.where("request.json"))
        except UserError as error:
            report.findings += [f"{where}: missing: the set is unfinished"] * missing + [str(error)]
            return
        whole, samples = 0, 0
        for done, (name, (_, count)) in enumerate(planned.items(), 1):
            report.bytes += sizes.get(name, 0) + sizes.get(index_name(name), 0)
            split, number = name.removesuffix(".tar").rsplit("-", 1)
            if name in sizes and finished_shard(self.store.root, split, int(number), count) is not None:
                whole, samples = whole + 1, samples + count
            elif name in sizes and index_name(name) not in sizes:
                self._found(
                    name, "has no index; `pidscale shards repair-index` writes it, or the maker makes the shard again"
                )
            elif name in sizes:
                self._found(name, "is not whole, or not what its index says; the maker makes it again")
            self.progress("shards", done, len(planned))
        report.samples = samples
        far = f"{whole} of {len(planned)} shards are whole ({samples} samples)"
        finish = how_to_finish(request, str(self.store.root))
        if missing:
            self._found("manifest.json", f"missing: the set is unfinished, {far}; finish it with {finish}")
        else:
            report.notes.append(f"{where}: {far}; delete it and write it anew with {finish}")
