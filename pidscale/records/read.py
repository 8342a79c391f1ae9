"""Reading samples of a shard set: only the wanted rows, each row block checked against its checksum.

A read covers the rows of one channel, or a whole sample if all rows are wanted, and goes directly into the caller's array if
the rows are whole row blocks. A rank that holds a quarter of the rows reads a quarter of the bytes. Knows bytes; must not
know equations, ranks or torch.
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
from pidscale.plain import shown
from pidscale.records.check import check_sizes, checked_sample, load_manifest, read_index
from pidscale.records.format import ROW_BLOCK, index_name, sample_key
from pidscale.records.json_checks import is_number
from pidscale.records.manifest import Manifest, Split
from pidscale.records.plan import Block, ReadPlan
from pidscale.records.stores.base import Store, Unreachable
from pidscale.records.stores.opening import open_store

_MOST_INDICES = 64  # kept in memory


@dataclass(frozen=True)
class _Shard:
    """The index of one shard: its name, and the keys, array offsets, checksums [C * blocks] and metas of its samples."""

    name: str
    keys: list[str]
    offsets: list[int]
    checks: list[list[int]]
    metas: list[dict[str, Any]]


class ShardSet:
    """The samples of one split, numbered from 0 in the order of the manifest. Safe to share between threads.

    `bytes_read` counts the bytes of fields that were read from the store.

    Args:
        root: The folder of the set, its address, or its store.
        split: The name of the split.
        verify: Whether to check each row block that is read.
        without: The stored numbers of samples to leave out; the samples after them move up.
        refuse_damaged: Whether to refuse a set with a missing or truncated shard at once. Otherwise its samples raise an
            error when they are read.
        manifest: The manifest, if it has been read already.

    Raises:
        UserError: The set has no such split, or is damaged; the message names the file.
    """

    def __init__(
        self,
        root: str | Path | Store,
        split: str,
        verify: bool = True,
        without: Sequence[int] = (),
        refuse_damaged: bool = True,
        manifest: Manifest | None = None,
    ) -> None:
        self.store = open_store(root)
        self.manifest = manifest or load_manifest(self.store)
        if split not in self.manifest.splits:
            has = ", ".join(sorted(self.manifest.splits))
            raise UserError(f"{self.where}: no split '{split}'; expected one of {has}")
        self.split: Split = self.manifest.splits[split]
        self.bytes_read = 0
        self._verify = verify
        if refuse_damaged:
            check_sizes(self.store, self.split.shards)
        self.counts = [entry.samples for entry in self.split.shards]
        self._ends = np.cumsum(self.counts, dtype=np.int64)
        self._kept: np.ndarray | None = None  # stored numbers, if some are left out
        if len(without):
            self._kept = np.setdiff1d(np.arange(self.split.samples), np.asarray(without, dtype=np.int64))
            self.counts = [int(n) for n in np.diff(np.searchsorted(self._kept, self._ends), prepend=0)]
        self._begins = np.insert(self._ends[:-1], 0, 0)
        self._blocks = -(-self.manifest.shape[1] // ROW_BLOCK)
        self._shards: OrderedDict[int, _Shard] = OrderedDict()
        self._plans: dict[tuple[int, int], ReadPlan] = {}
        self._finite: dict[tuple[int, int, int], bytearray] = {}
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """The file name of the manifest, for messages."""
        return self.store.where("manifest.json")

    def __len__(self) -> int:
        return self.split.samples if self._kept is None else len(self._kept)

    def _shard(self, number: int) -> _Shard:
        """Return the index of a shard, loading it if needed; the least recently used index is dropped."""
        with self._lock:
            if number not in self._shards:
                self._shards[number] = self._load(number)
                while len(self._shards) > _MOST_INDICES:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(number)
            return self._shards[number]

    def _load(self, number: int) -> _Shard:
        """Read and check the index of a shard."""
        entry = self.split.shards[number]
        where = self.store.where(index_name(entry.name))
        room = entry.bytes - 4 * math.prod(self.manifest.shape)
        shard = _Shard(entry.name, [], [], [], [])
        for n, sample in enumerate(read_index(self.store, entry), start=int(self._begins[number])):
            key = sample_key(n)
            try:
                offset, checks, meta = checked_sample(sample, key, self.manifest.shape, room)
            except (KeyError, TypeError, ValueError) as error:
                found = f"has no {error}" if isinstance(error, KeyError) else str(error)
                raise UserError(f"{where}: sample {key}: {found}; make the set again") from None
            shard.keys.append(key)
            shard.offsets.append(offset)
            shard.checks.append(checks)
            shard.metas.append(meta)
        return shard

    def stored(self, sample: int) -> int:
        """Return the number under which the set stores a sample.

        Args:
            sample: The number of the sample here, where samples may have been left out.

        Returns:
            The stored number.

        Raises:
            IndexError: There is no such sample.
        """
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)} in {self.where}")
        return sample if self._kept is None else int(self._kept[sample])

    def _places(self, samples: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
        """Return the number of the shard of each sample, and its position there."""
        wanted = np.asarray(samples, dtype=np.int64)
        for sample in wanted[(wanted < 0) | (wanted >= len(self))]:
            self.stored(int(sample))  # raises an error with the number
        stored = wanted if self._kept is None else self._kept[wanted]
        numbers = np.searchsorted(self._ends, stored, side="right")
        return list(zip(numbers.tolist(), (stored - self._begins[numbers]).tolist(), strict=True))

    def _place(self, sample: int) -> tuple[int, int]:
        """Return the number of the shard of a sample, and its position there."""
        return self._places([sample])[0]

    def meta(self, sample: int) -> dict[str, Any]:
        """Return the meta of a sample: "seed", "params" and "residual".

        An endpoint also has "noise", a converted sample "source" and, in a set of several files, "file".
        """
        number, position = self._place(int(sample))
        return self._shard(number).metas[position]

    def params(self, ids: Sequence[int] | np.ndarray, names: Iterable[str]) -> np.ndarray:
        """Return PDE parameters of samples.

        Args:
            ids: The numbers of the samples.
            names: The names of the parameters.

        Returns:
            The parameters, float64 [B, P], in the order of the names.

        Raises:
            UserError: A parameter is missing or not a finite number; the message names shard, sample and parameter.
        """
        wanted = list(names)
        found = np.empty((len(ids), len(wanted)))
        for line, sample in zip(found if wanted else (), ids, strict=False):
            params = self.meta(sample).get("params", {})
            for p, name in enumerate(wanted):
                value = params.get(name)
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
        """Read fields of samples.

        Args:
            ids: The numbers of the samples.
            rows: The rows, a slice of step 1; all rows if None.
            out: The array to read into, C-contiguous float32 of the shape of the result; a new one if None.

        Returns:
            The fields, float32 [B, C, y, X] as they are stored: in physical units, endpoints in units of the model.

        Raises:
            ValueError: `out` has another type, shape or memory layout.
            Unreachable: The files cannot be reached, which says nothing about them.
            UserError: Bytes have changed or values are not finite; the message names file, sample and channel, and the rows
                of a checksum that fails.
        """
        shape = self.shape_of(len(ids), rows)
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out: expected C-contiguous float32 {shape}, found {out.dtype} {out.shape}")
        first, last = _span(rows, self.manifest.shape[1])
        plan = self._plans.get((first, last))
        if plan is None:
            plan = ReadPlan.of(self.manifest.shape, first, last, self._verify, self.store.piece)
            self._plans[first, last] = plan
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
                if not self.store.discard_damaged(shard.name):
                    raise
                self._read_one(shard, position, plan, target, finite)
        with self._lock:
            self.bytes_read += plan.bytes * len(out)
        return out

    def shape_of(self, count: int, rows: slice | None = None) -> tuple[int, int, int, int]:
        """Return the shape [B, C, y, X] of `count` samples with these rows; ValueError for rows with a step."""
        channels, height, width = self.manifest.shape
        first, last = _span(rows, height)
        return count, channels, last - first, width

    def faults(self, ids: Iterable[int]) -> dict[int, str]:
        """Read samples, and return those that are damaged or hold values that are not finite.

        Args:
            ids: The numbers of the samples.

        Returns:
            The message of each such sample, by its number.

        Raises:
            Unreachable: The files cannot be reached, which says nothing about the samples.
        """
        found: dict[int, str] = {}
        for sample in ids:
            try:
                self.read([sample])
            except Unreachable:
                raise
            except UserError as error:
                found[sample] = str(error)
        return found

    def _read_one(self, shard: _Shard, position: int, plan: ReadPlan, target: np.ndarray, finite: bytearray) -> None:
        """Read a sample into `target` [C, y, X], and check once that its values are finite; `finite` has a flag a sample."""
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
            finite[position] = 1  # once is enough: if `verify`, checksums prove that the bytes stay the same

    def _fill(self, shard: _Shard, position: int, plan: ReadPlan, view: memoryview) -> None:
        """Read piece by piece, and check the row blocks of a piece while they are in the processor's cache."""
        begin_of_array = shard.offsets[position]
        fill = self.store.fill
        digest = xxhash.xxh3_64_intdigest
        checks = shard.checks[position]
        for start, stop, offset, blocks in plan.pieces:
            try:
                fill(shard.name, begin_of_array + offset, view[start:stop])
            except (ValueError, OSError):
                self._fill_blocks(shard, position, begin_of_array + offset - start, blocks, view)
            if self._verify:
                for begin, end, number in blocks:
                    if digest(view[begin:end]) != checks[number]:
                        c, block = divmod(number, self._blocks)
                        first = block * ROW_BLOCK
                        last = min((block + 1) * ROW_BLOCK, self.manifest.shape[1]) - 1
                        finding = f"row block {block} (rows {first} to {last}) fails its checksum; restore the file"
                        raise self._bad(shard, position, c, finding)

    def _fill_blocks(self, shard: _Shard, position: int, base: int, blocks: list[Block], view: memoryview) -> None:
        """Read a piece that failed again, block by block, so that the block that fails tells the channel."""
        for begin, end, number in blocks:
            try:
                self.store.fill(shard.name, base + begin, view[begin:end])
            except PermissionError:
                where = self.store.where(shard.name)
                raise Unreachable(f"{where}: this run may not read it; change its permissions") from None
            except FileNotFoundError:
                finding = "the file is missing, but manifest.json lists it; restore it"
                raise self._bad(shard, position, number // self._blocks, finding) from None
            except (ValueError, OSError) as error:
                raise self._bad(shard, position, number // self._blocks, str(error)) from None

    def _bad(self, shard: _Shard, position: int, channel: int, finding: str) -> UserError:
        """Return the error for a finding, which names file, sample and channel."""
        name = self.manifest.channels[channel].name
        where = f"{self.store.where(shard.name)}: sample {shard.keys[position]}, channel {channel} ({name})"
        return UserError(f"{where}: {finding}")

    def close(self) -> None:
        """Close the open files; reading opens them again."""
        self.store.close()


def _span(rows: slice | None, height: int) -> tuple[int, int]:
    """Return the first row and the row after the last one."""
    first, last, step = (slice(None) if rows is None else rows).indices(height)
    if step != 1:
        raise ValueError(f"rows={rows}: the step must be 1")
    return first, max(first, last)


def _all_finite(values: np.ndarray) -> bool:
    """Return whether every value is finite. A finite sum proves it quickly; a sum that overflows proves nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())
