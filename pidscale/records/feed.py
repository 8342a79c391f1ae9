"""The order of samples and their delivery to one worker: batches as a pure function of (seed, step).

Step s of a run takes positions [s B, (s + 1) B) of the endless sequence of epoch orders, B the global batch; each
worker takes its contiguous slice. So the state of the data is one integer, the step, whatever the number of workers.
Knows ranks only as two integers; must not know equations, models or devices.

Shapes: fields_BCyX, b samples of this worker, y its rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import UserError
from pidscale.parallel.mesh import rank_slice
from pidscale.records.read import ShardSet


def order(seed: int, epoch: int, counts: Sequence[int], block: int) -> np.ndarray:
    """Return the order of one epoch: a permutation of all samples, a function of (seed, epoch) alone.

    Shards are permuted, cut into groups of `block`, and the samples of each group are permuted together: only `block` shards
    are read at any time, and with block >= len(counts) the whole set is permuted at once.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch.
        counts: Samples of each shard.
        block: Shards that are mixed at a time.

    Returns:
        Numbers of samples, int64 [sum(counts)].

    Raises:
        UserError: block is below 1.
    """
    if block < 1:
        raise UserError(f"data.block={block}: expected at least 1, the number of shards mixed at a time")
    place = np.empty(len(counts), dtype=np.int64)
    place[seeds.permutation(seed, "order/shards", epoch, len(counts))] = np.arange(len(counts))
    group = np.repeat(place // block, counts)
    samples = seeds.permutation(seed, "order/samples", epoch, len(group))
    return samples[np.argsort(group[samples], kind="stable")]


class Batch(NamedTuple):
    """The training data of a worker at a step.

    Attributes:
        fields_BCYX: Fields in physical units, float32, the rows of the worker.
        params_BP: Parameters that vary from sample to sample, float64, on the CPU.
    """

    fields_BCYX: Tensor
    params_BP: Tensor


class Feed:
    """Batches of one worker, read ahead by threads into reused buffers. The step is the only state.

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
        threads: int = 1,
        pinned: bool = False,
        params: Callable[[np.ndarray], Tensor] | None = None,
    ) -> None:
        """Open the feed and start reading ahead.

        Args:
            shards: The split to read.
            seed: Seed of the run.
            global_batch: Number of samples per step, over all workers.
            rank: Rank on the data axis.
            world: Number of ranks on the data axis.
            prefetch: Number of batches to read ahead.
            start_step: First step.
            rows: Rows of this worker; None for all rows.
            block: Number of shards whose samples are mixed at a time.
            threads: Number of threads that read ahead; 0 to read within `batch`.
            pinned: Whether to use pinned memory for the buffers, which speeds up copies to a GPU.
            params: Returns the parameters [b, P] of samples, given their numbers; None for batches without parameters.

        Raises:
            UserError: When `global_batch` or `prefetch` is below 1, or the split has no samples.
            ValueError: When `rank` is not below `world`, or negative.
        """
        if global_batch < 1:
            raise UserError(f"data.global_batch={global_batch}: expected at least 1")
        if prefetch < 1:
            raise UserError(f"data.prefetch={prefetch}: expected at least 1, the number of batches read ahead")
        if len(shards) == 0:
            raise UserError(f"{shards.where}: the split holds no samples; choose another data.path")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of world {world}")
        self.shards, self.rows, self.waited = shards, rows, 0.0
        self._seed, self._block = seed, block
        self._ahead = prefetch if threads else 0
        self._global_batch = global_batch
        self._bounds = rank_slice(global_batch, rank, world)
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        shape = shards.shape_of(self._bounds.stop - self._bounds.start, rows)
        # one buffer is in use, the others are being filled
        self._buffers = [torch.empty(shape, pin_memory=pinned) for _ in range(self._ahead + 1)]
        self._read_params = params or (lambda ids: torch.empty(len(ids), 0, dtype=torch.float64))
        self._params: list[Tensor | None] = [None] * len(self._buffers)
        self._threads = min(threads, prefetch)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[None]] = {}
        self._next = start_step
        self._read_ahead(start_step)

    def _order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch; the orders of adjacent epochs stay cached."""
        with self._lock:
            if epoch not in self._orders:
                self._orders = {e: o for e, o in self._orders.items() if abs(e - epoch) < 2}
                self._orders[epoch] = order(self._seed, epoch, self.shards.counts, self._block)
            return self._orders[epoch]

    def ids(self, step: int) -> np.ndarray:
        """Return the numbers of this worker's samples at a step, int64 [b], for `shards.read` and `shards.meta`."""
        first, last = (step * self._global_batch + bound for bound in (self._bounds.start, self._bounds.stop))
        parts = [np.empty(0, dtype=np.int64)]
        n = len(self.shards)
        while first < last:
            epoch, start = divmod(first, n)
            taken = min(last - first, n - start)
            parts.append(self._order(epoch)[start : start + taken])
            first += taken
        return np.concatenate(parts)

    def batch(self, step: int) -> Batch:
        """Return fields and parameters of a step. The fields are valid until the next call, which reuses their memory.

        Any step may be requested; the following ones are then read ahead. Raises any error of reading (UserError for changed
        bytes).
        """
        if step != self._next:
            self.close()
            self._next = step
        began = time.perf_counter()
        self._read_ahead(step)
        try:
            if self._ahead:
                self._pending.pop(step).result()
            else:
                self._fill(step)
        except BaseException:
            self.close()
            raise
        finally:
            self.waited += time.perf_counter() - began
        self._next = step + 1
        params = self._params[self._place(step)]
        assert params is not None
        return Batch(self._buffers[self._place(step)], params)

    def _place(self, step: int) -> int:
        """Return the buffer of a step: step s + prefetch + 1 reuses the buffer of step s, which is finished by then."""
        return step % len(self._buffers)

    def _fill(self, step: int) -> None:
        ids = self.ids(step)
        self.shards.read(ids, self.rows, self._buffers[self._place(step)].numpy())
        self._params[self._place(step)] = self._read_params(ids)

    def _read_ahead(self, step: int) -> None:
        """Submit the reading of a step and the following ones, one for each buffer."""
        if self._ahead and self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "feed")
        for ahead in range(step, step + len(self._buffers)) if self._pool is not None else ():
            if ahead not in self._pending:
                self._pending[ahead] = self._pool.submit(self._fill, ahead)  # type: ignore[union-attr]

    def close(self) -> None:
        """Stop reading ahead and wait for the threads."""
        pool, self._pool, self._pending = self._pool, None, {}
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
