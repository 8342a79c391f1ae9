"""The ranks of a run on two axes, data and space, and the few collectives that the loops need.

Ranks of one space group share every sample, each with some of its rows; they are neighbours in rank, so that they sit on one
host where it can hold them. One process is a mesh of size 1: nothing is exchanged and torch.distributed need not be
initialised. Knows no physics and no models.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d


def rank_slice(count: int, rank: int, world: int) -> slice:
    """The contiguous share of `count` items that a rank takes; shares differ by one item at most."""
    return slice(count * rank // world, count * (rank + 1) // world)


@dataclass
class Traffic:
    """What this rank sent to others of its space group, by kind of exchange, and how long it stood waiting for them.

    seconds: of the host; under NCCL, whose exchanges run beside it, near 0.
    """

    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def sent(self, kind: str, messages: int, bytes_: int) -> None:
        """Count messages that leave this rank; a collective counts as one."""
        self.messages[kind] += messages
        self.bytes[kind] += bytes_

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time the body."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def clear(self) -> None:
        """Forget everything."""
        self.messages.clear()
        self.bytes.clear()
        self.seconds = 0.0


@dataclass(frozen=True)
class Space:
    """The ranks that share each sample. rank: this one's place among them, from the top rows down."""

    rank: int = 0
    size: int = 1
    group: Any = None
    base: int = 0  # rank in the world of the first of them
    traffic: Traffic = field(default_factory=Traffic, compare=False, repr=False)

    @property
    def above(self) -> int:
        """Rank in the world of the holder of the rows above, the last one where this is the first."""
        return self.base + (self.rank - 1) % self.size

    @property
    def below(self) -> int:
        """Rank in the world of the holder of the rows below, the first one where this is the last."""
        return self.base + (self.rank + 1) % self.size


def _limit_new_groups(timeout: float) -> None:
    """Let groups that are made without a limit of their own, as DeepSpeed makes them, wait so many seconds for a rank.

    torch has no call for it: its default is these two names.
    """
    limit = datetime.timedelta(seconds=timeout)
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(distributed_c10d, name, limit)


@dataclass(frozen=True)
class Mesh:
    """This process among all: rank, world size, device, and the space group that it belongs to."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    space: Space = Space()

    @classmethod
    def over(cls, rank: int, world: int, device: torch.device, space: int, timeout: float = 1800.0) -> Mesh:
        """A mesh of world / space groups of `space` ranks each. All ranks call it. ValueError where that does not divide.

        timeout: seconds that its groups, and all that a library makes after them, wait for a rank.
        """
        if space < 1 or world % space:
            raise ValueError(f"cluster.space={space} does not divide the {world} workers")
        _limit_new_groups(timeout)
        if space == 1:
            return cls(rank, world, device)
        limit, own = datetime.timedelta(seconds=timeout), None
        for first in range(0, world, space):  # every rank makes every group, in one order
            group = dist.new_group(list(range(first, first + space)), timeout=limit)
            if first <= rank < first + space:
                own = Space(rank - first, space, group, first)
        assert own is not None
        return cls(rank, world, device, own)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    @property
    def data(self) -> int:
        """Size of the data axis: how many groups share the samples of a global batch."""
        return self.world // self.space.size

    @property
    def data_rank(self) -> int:
        """This rank's place on the data axis."""
        return self.rank // self.space.size

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, in float64 and outside the graph. One all-reduce of 8 bytes a value."""
        total = values.detach().to(device=self.device, dtype=torch.float64, copy=True)
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether any rank says so. One all-reduce of 8 bytes."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()

    def broadcast(self, value: Any) -> Any:
        """The first rank's value, on every rank. One broadcast of its pickled bytes between our own processes."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather_pieces(self, piece: Tensor) -> list[Tensor]:
        """Equal pieces of all ranks, in rank order. One all-gather of their bytes."""
        if self.world == 1:
            return [piece]
        pieces = [torch.empty_like(piece) for _ in range(self.world)]
        dist.all_gather(pieces, piece.contiguous())
        return pieces

    def slice(self, count: int) -> slice:
        """This space group's share of `count` samples, the same one that `records.feed` reads."""
        return rank_slice(count, self.data_rank, self.data)
