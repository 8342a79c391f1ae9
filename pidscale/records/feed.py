"""The order of samples and their delivery to one worker: batches as a pure function of (seed, step).

Step s of a run takes positions [s B, (s + 1) B) of the endless sequence of epoch orders, B the global batch; each
worker takes its contiguous slice. So the state of the data is one integer, the step, whatever the number of workers.
Knows ranks only as two integers; must not know equations, models or devices.

Shapes: fields_BCyX, b samples of this worker, y its rows.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import UserError
from pidscale.parallel.mesh import share
from pidscale.records.read import ShardSet

_POLL = 0.1  # seconds between looks at whether the other side is still there


def order(seed: int, epoch: int, counts: Sequence[int], block: int) -> np.ndarray:
    """The order of one epoch: a permutation of all samples, int64 [sum(counts)], a function of (seed, epoch) alone.

    counts: samples of each shard. block: shards mixed at a time. Shards are permuted, cut into groups of `block`, and
    the samples of each group are permuted together: so only `block` shards are read from at any time, and with
    block >= len(counts) the whole set is permuted at once.
    """
    if block < 1:
        raise UserError(f"data.block={block}: expected at least 1, the number of shards mixed at a time")
    place = np.empty(len(counts), dtype=np.int64)
    place[seeds.permutation(seed, "order/shards", epoch, len(counts))] = np.arange(len(counts))
    group = np.repeat(place // block, counts)
    samples = seeds.permutation(seed, "order/samples", epoch, len(group))
    return samples[np.argsort(group[samples], kind="stable")]


class Feed:
    """Batches of one worker, read ahead by one thread. State: the step, nothing else.

    `waited` counts the seconds that `batch` has waited for data.
    """

    def __init__(
        self,
        shards: ShardSet,
        seed: int,
        global_batch: int,
        rank: int,
        world: int,
        prefetch: int = 2,
        start_step: int = 0,
        rows: slice | None = None,
        block: int = 16,
    ) -> None:
        """shards: the split. rank, world: place on the data axis. rows: rows of this worker (all if None).

        prefetch: batches read ahead. start_step: where reading ahead begins. block: shards mixed at a time. UserError
        for a batch below 1 or a set without samples.
        """
        if global_batch < 1:
            raise UserError(f"data.global_batch={global_batch}: expected at least 1")
        if prefetch < 1:
            raise UserError(f"data.prefetch={prefetch}: expected at least 1, the number of batches read ahead")
        if len(shards) == 0:
            raise UserError(f"{shards.root / 'manifest.json'}: the split holds no samples; choose another data.path")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of world {world}")
        self.shards, self.rows, self.waited = shards, rows, 0.0
        self._seed, self._block, self._prefetch = seed, block, prefetch
        self._global_batch, self._bounds = global_batch, share(global_batch, rank, world)
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self._next = start_step
        self._start(start_step)

    def _order(self, epoch: int) -> np.ndarray:
        """The order of an epoch; the last two are kept."""
        with self._lock:
            if epoch not in self._orders:
                self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
                self._orders[epoch] = order(self._seed, epoch, self.shards.counts, self._block)
            return self._orders[epoch]

    def ids(self, step: int) -> np.ndarray:
        """This worker's samples of a step, int64 [b]: numbers for shards.read and shards.meta."""
        first, last = (step * self._global_batch + bound for bound in (self._bounds.start, self._bounds.stop))
        parts, n = [np.empty(0, dtype=np.int64)], len(self.shards)
        while first < last:
            epoch, start = divmod(first, n)
            taken = min(last - first, n - start)
            parts.append(self._order(epoch)[start : start + taken])
            first += taken
        return np.concatenate(parts)

    def batch(self, step: int) -> Tensor:
        """Fields of a step, float32 [b, C, y, X] in physical units. Any step may be asked for; the next one is ready.

        Raises what the reading raised (UserError for bytes that changed).
        """
        if step != self._next or (self._ready.empty() and not self._thread.is_alive()):
            self.close()
            self._start(step)
        began = time.perf_counter()
        found = self._take()
        self.waited += time.perf_counter() - began
        if isinstance(found, BaseException):
            self.close()
            raise found
        self._next = step + 1
        return torch.from_numpy(found)

    def close(self) -> None:
        """Stop reading ahead and wait for the thread."""
        self._stop.set()
        self._thread.join()

    def _start(self, step: int) -> None:
        self._next = step
        self._ready: queue.Queue[np.ndarray | BaseException] = queue.Queue(self._prefetch)
        self._stop = threading.Event()
        arguments = (step, self._ready, self._stop)
        self._thread: threading.Thread = threading.Thread(target=self._read_ahead, args=arguments, daemon=True)
        self._thread.start()

    def _take(self) -> np.ndarray | BaseException:
        """The next thing that the thread made; an error if it died without a word."""
        while True:
            alive = self._thread.is_alive()
            try:
                return self._ready.get(timeout=_POLL)
            except queue.Empty:
                if not alive:
                    return RuntimeError("the reading thread ended without a batch")

    def _read_ahead(self, step: int, ready: queue.Queue[np.ndarray | BaseException], stop: threading.Event) -> None:
        found: np.ndarray | BaseException
        while not stop.is_set():
            try:
                found = self.shards.read(self.ids(step), self.rows)
            except BaseException as error:  # whatever it is, the consumer raises it
                found = error
            while not stop.is_set():
                try:
                    ready.put(found, timeout=_POLL)
                    break
                except queue.Full:
                    continue
            if isinstance(found, BaseException):
                return
            step += 1
