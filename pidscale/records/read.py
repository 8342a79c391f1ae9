"""Read samples of a shard set: only the wanted rows, each block of rows checked against its checksum.

One read per channel and sample, or per sample where all rows are wanted, straight into the caller's array where the rows
are whole blocks: a rank that holds a quarter of the rows reads a quarter of the bytes. Knows bytes; must not know
equations, ranks or torch.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pidscale.config import UserError
from pidscale.records.check import check_sizes, checked_sample, load_manifest, read_index
from pidscale.records.layout import ROW_BLOCK, Manifest, Split, index_name, is_number, sample_key, shown
from pidscale.records.plan import Block, Plan
from pidscale.records.stores.base import Store, Unreachable
from pidscale.records.stores.opening import open_store

_INDICES = 64  # shards whose index is kept in memory


@dataclass(frozen=True)
class _Shard:
    """One shard's index in memory: its name, n keys, n array offsets, checksums [n, C * blocks], n metas."""

    name: str
    keys: list[str]
    offsets: list[int]
    checks: list[list[int]]
    metas: list[dict[str, Any]]


class ShardSet:
    """The samples of one split, numbered from 0 in the order of the manifest. Safe to share between threads.

    `bytes_read` counts the bytes of fields that were asked of the store.
    """

    def __init__(
        self,
        root: str | Path | Store,
        split: str,
        verify: bool = True,
        without: Sequence[int] = (),
        whole: bool = True,
        manifest: Manifest | None = None,
    ) -> None:
        """Open a set. root: its folder, its address, or its store. verify: check each block of rows that is read.

        without: stored numbers of samples that are left out; those that follow move up. whole: refuse a set of which a
        shard is missing or cut, else its samples are found bad when they are read. manifest: if it is loaded already.
        UserError names what is wrong.
        """
        self.store = open_store(root)
        self.manifest = manifest or load_manifest(self.store)
        if split not in self.manifest.splits:
            has = ", ".join(sorted(self.manifest.splits))
            raise UserError(f"{self.where}: no split '{split}'; the set has {has}")
        self.split: Split = self.manifest.splits[split]
        self.bytes_read = 0
        self._verify = verify
        if whole:
            check_sizes(self.store, self.split.shards)
        self.counts = [entry.samples for entry in self.split.shards]
        self._ends = np.cumsum(self.counts, dtype=np.int64)
        self._kept: np.ndarray | None = None  # stored numbers, where some are left out
        if len(without):
            self._kept = np.setdiff1d(np.arange(self.split.samples), np.asarray(without, dtype=np.int64))
            self.counts = [int(n) for n in np.diff(np.searchsorted(self._kept, self._ends), prepend=0)]
        self._begins = np.insert(self._ends[:-1], 0, 0)
        self._blocks = -(-self.manifest.shape[1] // ROW_BLOCK)
        self._shards: OrderedDict[int, _Shard] = OrderedDict()
        self._plans: dict[tuple[int, int], Plan] = {}
        self._finite: dict[tuple[int, int, int], bytearray] = {}
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """The set's manifest, for messages."""
        return self.store.where("manifest.json")

    def __len__(self) -> int:
        return self.split.samples if self._kept is None else len(self._kept)

    def _shard(self, number: int) -> _Shard:
        """The index of a shard, checked when it is loaded; the least recently used one is dropped."""
        with self._lock:
            if number not in self._shards:
                self._shards[number] = self._load(number)
                while len(self._shards) > _INDICES:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(number)
            return self._shards[number]

    def _load(self, number: int) -> _Shard:
        entry, first = self.split.shards[number], int(self._ends[number])
        where, listed = self.store.where(index_name(entry.name)), read_index(self.store, entry)
        shard, room = _Shard(entry.name, [], [], [], []), entry.bytes - 4 * math.prod(self.manifest.shape)
        for n, sample in enumerate(listed, start=first - entry.samples):
            key = sample_key(n)
            try:
                offset, checks, meta = checked_sample(sample, key, self.manifest.shape, room)
            except (KeyError, TypeError, ValueError) as error:
                said = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise UserError(f"{where}: sample {key}: {said}; make the set again") from None
            shard.keys.append(key)
            shard.offsets.append(offset)
            shard.checks.append(checks)
            shard.metas.append(meta)
        return shard

    def stored(self, sample: int) -> int:
        """The number under which the set stores a sample."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)} in {self.where}")
        return sample if self._kept is None else int(self._kept[sample])

    def _places(self, samples: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
        """Shard and position in it of each sample."""
        wanted = np.asarray(samples, dtype=np.int64)
        for sample in wanted[(wanted < 0) | (wanted >= len(self))]:
            self.stored(int(sample))  # says which is none of the set
        stored = wanted if self._kept is None else self._kept[wanted]
        numbers = np.searchsorted(self._ends, stored, side="right")
        return list(zip(numbers.tolist(), (stored - self._begins[numbers]).tolist(), strict=True))

    def _place(self, sample: int) -> tuple[int, int]:
        """Shard and position in it of a sample."""
        return self._places([sample])[0]

    def meta(self, sample: int) -> dict[str, Any]:
        """Return "seed", "params" and "residual" of a sample."""
        number, position = self._place(int(sample))
        return self._shard(number).metas[position]

    def params(self, ids: Sequence[int] | np.ndarray, names: Iterable[str]) -> np.ndarray:
        """Return parameters of samples, float64 [B, P], in the order of their names.

        UserError names shard, sample and parameter where one is missing or no finite number.
        """
        wanted = list(names)
        found = np.empty((len(ids), len(wanted)))
        for line, sample in zip(found if wanted else (), ids, strict=False):
            held = self.meta(sample).get("params", {})
            for p, name in enumerate(wanted):
                value = held.get(name)
                if not is_number(value):
                    shard = self.split.shards[self._place(int(sample))[0]].name
                    raise UserError(
                        f"{self.store.where(shard)}: sample {sample} has no number for its parameter {name!r} (found "
                        f"{shown(value)}), which this equation needs in every sample; make the set again"
                    )
                line[p] = value
        return found

    def read(
        self, ids: Sequence[int] | np.ndarray, rows: slice | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return fields, float32 [B, C, y, X] in physical units.

        rows: a slice of step 1 (all rows if None). out: where to put them, float32, C-contiguous, of that shape.
        UserError names file, sample, channel and rows of bytes that changed or values that are not finite.
        """
        shape = self.shape_of(len(ids), rows)
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}; it must be contiguous float32 {shape}")
        first, last = _span(rows, self.manifest.shape[1])
        plan = self._plans.get((first, last))
        if plan is None:
            plan = self._plans[first, last] = Plan.of(self.manifest.shape, first, last, self._verify, self.store.piece)
        used: dict[int, tuple[_Shard, bytearray]] = {}
        for target, (number, position) in zip(out, self._places(ids), strict=True):
            if number not in used:
                flags = bytearray(self.split.shards[number].samples)
                used[number] = self._shard(number), self._finite.setdefault((number, first, last), flags)
            shard, finite = used[number]
            try:
                self._read_one(shard, position, plan, target, finite)
            except Unreachable:
                raise
            except UserError:
                if not self.store.renew(shard.name):
                    raise
                self._read_one(shard, position, plan, target, finite)
        with self._lock:
            self.bytes_read += plan.bytes * len(out)
        return out

    def shape_of(self, count: int, rows: slice | None = None) -> tuple[int, int, int, int]:
        """The shape [B, C, y, X] of so many samples. ValueError for rows with a step."""
        channels, height, width = self.manifest.shape
        first, last = _span(rows, height)
        return count, channels, last - first, width

    def faults(self, ids: Iterable[int]) -> dict[int, str]:
        """Samples that are damaged, or hold what they should not, and why. Raises Unreachable where it is not their fault."""
        found: dict[int, str] = {}
        for sample in ids:
            try:
                self.read([sample])
            except Unreachable:
                raise
            except UserError as error:
                found[sample] = str(error)
        return found

    def _read_one(self, shard: _Shard, position: int, plan: Plan, target: np.ndarray, finite: bytearray) -> None:
        """Fill [C, y, X] as planned. finite: a flag per sample of the shard, set once its values have been looked at."""
        if not target.size:
            return
        if plan.held == target.shape:
            self._fill(shard, position, plan, target.data.cast("B"))
        else:
            held = np.empty(plan.held, dtype=np.float32)
            self._fill(shard, position, plan, held.data.cast("B"))
            target[...] = held[:, plan.skip : plan.skip + target.shape[1]]
        if not finite[position]:
            for c, channel in enumerate(target):
                if not _all_finite(channel):
                    raise self._bad(shard, position, c, "holds values that are not finite; make the set again")
            finite[position] = 1  # once is enough: the same bytes come again, as their checksums say

    def _fill(self, shard: _Shard, position: int, plan: Plan, view: memoryview) -> None:
        """Read a piece at a time, and check each block of a piece while it is warm."""
        offset, fill, digest = shard.offsets[position], self.store.fill, xxhash.xxh3_64_intdigest
        checks = shard.checks[position]
        for start, stop, at, blocks in plan.pieces:
            try:
                fill(shard.name, offset + at, view[start:stop])
            except (ValueError, OSError):
                self._fill_blocks(shard, position, offset + at - start, blocks, view)
            if self._verify:
                for begin, end, number in blocks:
                    if digest(view[begin:end]) != checks[number]:
                        c, block = divmod(number, self._blocks)
                        first, last = block * ROW_BLOCK, min((block + 1) * ROW_BLOCK, self.manifest.shape[1]) - 1
                        said = f"row block {block} (rows {first} to {last}) fails its checksum; restore the file"
                        raise self._bad(shard, position, c, said)

    def _fill_blocks(self, shard: _Shard, position: int, base: int, blocks: list[Block], view: memoryview) -> None:
        """Read a piece that failed once more, block by block: the one that fails again says which channel it is."""
        for begin, end, number in blocks:
            try:
                self.store.fill(shard.name, base + begin, view[begin:end])
            except PermissionError:
                where = self.store.where(shard.name)
                raise Unreachable(f"{where}: this run may not read it; change its permissions") from None
            except FileNotFoundError:
                said = "the file is missing, but manifest.json lists it; restore it"
                raise self._bad(shard, position, number // self._blocks, said) from None
            except (ValueError, OSError) as error:
                raise self._bad(shard, position, number // self._blocks, str(error)) from None

    def _bad(self, shard: _Shard, position: int, channel: int, said: str) -> UserError:
        """A finding about bytes in one line that names file, sample and channel."""
        name = self.manifest.channels[channel].name
        where = f"{self.store.where(shard.name)}: sample {shard.keys[position]}, channel {channel} ({name})"
        return UserError(f"{where}: {said}")

    def close(self) -> None:
        """Close the files that are kept open; reading opens them again."""
        self.store.close()


def _span(rows: slice | None, height: int) -> tuple[int, int]:
    first, last, step = (slice(None) if rows is None else rows).indices(height)
    if step != 1:
        raise ValueError(f"rows={rows}: the step must be 1")
    return first, max(first, last)


def _all_finite(values: np.ndarray) -> bool:
    """Whether every value is finite. A sum is quick and never finite if one is not; a sum that overflows decides nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())
