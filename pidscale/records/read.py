"""Read samples of a shard set: only the wanted rows, each block of rows checked against its checksum.

One pread per channel and sample, straight into the caller's array where the rows are whole blocks: a rank that holds a
quarter of the rows reads a quarter of the bytes. Knows bytes; must not know equations, ranks or torch.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pidscale.config import UserError
from pidscale.records.layout import ROW_BLOCK, Split, check_shard, index_name, load_manifest

_OPEN_FILES = 32  # shards whose file is kept open


@dataclass(frozen=True)
class _Shard:
    """One shard's index in memory: n keys, n array offsets, checksums [n, C, blocks], n metas."""

    path: Path
    keys: list[str]
    offsets: list[int]
    checks: np.ndarray
    metas: list[dict[str, Any]]


class ShardSet:
    """The samples of one split, numbered from 0 in the order of the manifest. Safe to share between threads."""

    def __init__(self, root: str | Path, split: str, verify: bool = True) -> None:
        """Open a set. root: its folder. verify: check every block of rows that is read against its checksum.

        UserError names a folder that is not a set, a split that it does not have, or a shard that is missing or cut.
        """
        self.root = Path(root)
        self.manifest = load_manifest(root)
        if split not in self.manifest.splits:
            has = ", ".join(sorted(self.manifest.splits))
            raise UserError(f"{self.root / 'manifest.json'}: no split '{split}'; the set has {has}")
        self.split: Split = self.manifest.splits[split]
        self.counts = [entry.samples for entry in self.split.shards]
        self._ends = np.cumsum(self.counts)
        self._verify = verify
        self._shards: dict[int, _Shard] = {}
        self._files: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()
        self._check_sizes()

    def _check_sizes(self) -> None:
        for entry in self.split.shards:
            path = self.root / entry.name
            size = path.stat().st_size if path.is_file() else None
            if size != entry.bytes:
                found = "missing" if size is None else f"{size} bytes"
                raise UserError(f"{path}: {found}, manifest.json says {entry.bytes} bytes; restore the file")

    def __len__(self) -> int:
        return self.split.samples

    def _shard(self, number: int) -> _Shard:
        """The index of a shard, checked and kept from its first use."""
        if number not in self._shards:
            entry = self.split.shards[number]
            listed = check_shard(self.root, entry)
            for sample in listed:
                if tuple(sample["shape"]) != self.manifest.shape:
                    where = f"{self.root / index_name(entry.name)}: sample {sample['key']}"
                    raise UserError(f"{where} has shape {sample['shape']}, manifest.json says {self.manifest.shape}")
            self._shards[number] = _Shard(
                self.root / entry.name,
                [s["key"] for s in listed],
                [s["fields"]["array"] for s in listed],
                np.array([[[int(b, 16) for b in c] for c in s["checksums"]] for s in listed], dtype=np.uint64),
                [s["meta"] for s in listed],
            )
        return self._shards[number]

    def _file(self, number: int) -> int:
        """An open descriptor of a shard; the least recently used one is closed when there are too many."""
        if number in self._files:
            self._files.move_to_end(number)
        else:
            while len(self._files) >= _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            self._files[number] = os.open(self.root / self.split.shards[number].name, os.O_RDONLY | os.O_CLOEXEC)
        return self._files[number]

    def _place(self, sample: int) -> tuple[int, int]:
        """Shard and position in it of a sample."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)} in {self.root}")
        number = int(np.searchsorted(self._ends, sample, side="right"))
        return number, sample - int(self._ends[number]) + self.counts[number]

    def meta(self, sample: int) -> dict[str, Any]:
        """Return "seed", "params" and "residual" of a sample."""
        with self._lock:
            number, position = self._place(int(sample))
            return self._shard(number).metas[position]

    def params(self, ids: Sequence[int] | np.ndarray, names: Iterable[str]) -> np.ndarray:
        """Return parameters of samples, float64 [B, P], in the order of their names.

        UserError names shard, sample and parameter where one is missing or no finite number.
        """
        wanted = list(names)
        found = np.empty((len(ids), len(wanted)))
        for line, sample in zip(found, ids, strict=True):
            held = self.meta(sample).get("params", {})
            for p, name in enumerate(wanted):
                value = held.get(name)
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                    shard = self._shard(self._place(int(sample))[0]).path
                    raise UserError(
                        f"{shard}: sample {sample} has no number for its parameter {name!r} (found {value!r}), which this "
                        "equation needs in every sample; make the set again"
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
        channels, height, width = self.manifest.shape
        first, last, step = (slice(None) if rows is None else rows).indices(height)
        last = max(first, last)
        if step != 1:
            raise ValueError(f"rows={rows}: the step must be 1")
        shape = (len(ids), channels, last - first, width)
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}; it must be contiguous float32 {shape}")
        with self._lock:
            for target, sample in zip(out, ids, strict=True):
                self._read_one(int(sample), first, last, target)
        return out

    def _read_one(self, sample: int, first: int, last: int, target: np.ndarray) -> None:
        number, position = self._place(sample)
        shard, file = self._shard(number), self._file(number)
        _, height, width = self.manifest.shape
        low, high = first, last
        if self._verify:  # whole blocks, as the checksums have them
            low, high = first - first % ROW_BLOCK, min(height, -(-last // ROW_BLOCK) * ROW_BLOCK)
        for c, wanted in enumerate(target):
            whole = wanted if (low, high) == (first, last) else np.empty((high - low, width), dtype=np.float32)
            offset = shard.offsets[position] + 4 * width * (c * height + low)
            with self._named(shard, position, c):
                self._fill(file, whole, offset)
                if self._verify:
                    self._check_blocks(whole, shard.checks[position, c], low // ROW_BLOCK)
                if whole is not wanted:
                    wanted[...] = whole[first - low : last - low]
                if not np.isfinite(wanted).all():
                    raise ValueError("holds values that are not finite; make the set again")

    @contextmanager
    def _named(self, shard: _Shard, position: int, channel: int) -> Iterator[None]:
        """Turn a finding about bytes into one line that names file, sample and channel."""
        try:
            yield
        except (ValueError, OSError) as error:
            name = self.manifest.channels[channel].name
            where = f"{shard.path}: sample {shard.keys[position]}, channel {channel} ({name})"
            raise UserError(f"{where}: {error}") from None

    @staticmethod
    def _fill(file: int, whole: np.ndarray, offset: int) -> None:
        view = whole.data.cast("B") if whole.size else memoryview(b"")
        done = 0
        while done < len(view):  # one pread, unless it is very large or interrupted
            got = os.preadv(file, [view[done:]], offset + done)
            if got == 0:
                raise ValueError("the file ends inside this sample; restore the file")
            done += got

    @staticmethod
    def _check_blocks(whole: np.ndarray, checks: np.ndarray, block: int) -> None:
        for i, y in enumerate(range(0, len(whole), ROW_BLOCK)):
            if xxhash.xxh3_64_intdigest(whole[y : y + ROW_BLOCK].data) != int(checks[block + i]):
                start = (block + i) * ROW_BLOCK
                rows = f"row block {block + i} (rows {start} to {start + len(whole[y : y + ROW_BLOCK]) - 1})"
                raise ValueError(f"{rows} fails its checksum; restore the file")

    def close(self) -> None:
        """Close the files that are kept open; reading opens them again."""
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])
