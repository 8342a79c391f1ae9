"""The mesh of ranks, with the axes data and space, and the few collectives that the training loops need.

The ranks of one space group share every sample, each with some of its rows. They have consecutive rank numbers, so that they
run on one host where it has room for them. One process is a mesh of size 1: it exchanges nothing, and torch.distributed need
not be initialised. Knows no physics and no models.
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

_PATIENCE = datetime.timedelta(hours=6)  # of collectives that wait for a disk


def rank_slice(count: int, rank: int, world: int) -> slice:
    """Return the contiguous share of `count` items that a rank takes; shares differ by one item at most.

    Args:
        count: The number of items.
        rank: The rank, from 0.
        world: The number of ranks.

    Returns:
        The slice of the items.
    """
    return slice(count * rank // world, count * (rank + 1) // world)


@dataclass
class Traffic:
    """What this rank has sent to the other ranks of its space group, and how long it has waited for them.

    Attributes:
        messages: The number of messages, by kind of exchange.
        bytes: Their bytes, by kind of exchange.
        seconds: The time that the host process has waited; near 0 under NCCL, which communicates in the background.
    """

    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def sent(self, kind: str, messages: int, bytes_: int) -> None:
        """Count messages that leave this rank; a collective counts as one.

        Args:
            kind: The kind of exchange.
            messages: The number of messages.
            bytes_: The bytes of all of them together.
        """
        self.messages[kind] += messages
        self.bytes[kind] += bytes_

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Add the time that the body takes to `seconds`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def clear(self) -> None:
        """Set all counts to zero."""
        self.messages.clear()
        self.bytes.clear()
        self.seconds = 0.0


@dataclass(frozen=True)
class Space:
    """A space group: the ranks that share each sample, as one of them sees it.

    Attributes:
        rank: The place of this rank in the group; rank 0 has the first rows.
        size: The number of ranks in the group.
        group: The process group of torch.distributed; None for a group of one.
        base: The global rank of the group's rank 0.
        traffic: What this rank has sent to the others.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    base: int = 0
    traffic: Traffic = field(default_factory=Traffic, compare=False, repr=False)

    @property
    def above(self) -> int:
        """The global rank that holds the rows above; for the first rank of the group, the last one."""
        return self.base + (self.rank - 1) % self.size

    @property
    def below(self) -> int:
        """The global rank that holds the rows below; for the last rank of the group, the first one."""
        return self.base + (self.rank + 1) % self.size


def _limit_new_groups(timeout: float) -> None:
    """Set the timeout of process groups that are created without one, as DeepSpeed creates them.

    torch has no call for this: it reads its default from these two names.
    """
    limit = datetime.timedelta(seconds=timeout)
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):
        setattr(distributed_c10d, name, limit)


@dataclass(frozen=True)
class Mesh:
    """The mesh of ranks as one of them sees it.

    Attributes:
        rank: The global rank of this process.
        world: The number of ranks.
        device: The device of this rank.
        space: The space group that this rank belongs to.
        group: The process group of all ranks that the mesh's own collectives use; None: the default one.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    space: Space = Space()
    group: Any = None

    @classmethod
    def over(cls, rank: int, world: int, device: torch.device, space: int, timeout: float = 1800.0) -> Mesh:
        """Create a mesh of world / space groups with `space` ranks each. All ranks call it.

        Args:
            rank: The global rank of this process.
            world: The number of ranks.
            device: The device of this rank.
            space: The number of ranks that share each sample.
            timeout: The seconds that a collective waits for a rank, in these groups and in those that are created later
                without a timeout.

        Returns:
            The mesh.

        Raises:
            ValueError: `space` does not divide the number of ranks.
        """
        if space < 1 or world % space:
            raise ValueError(
                f"cluster.space={space} does not divide the {world} workers; set it to a divisor of cluster.workers"
            )
        _limit_new_groups(timeout)
        if space == 1:
            return cls(rank, world, device)
        limit = datetime.timedelta(seconds=timeout)
        own = None
        for first in range(0, world, space):  # every rank creates every group, in the same order
            group = dist.new_group(list(range(first, first + space)), timeout=limit)
            if first <= rank < first + space:
                own = Space(rank - first, space, group, first)
        assert own is not None
        return cls(rank, world, device, own)

    def aside(self) -> Mesh:
        """Make a mesh of the same ranks for another thread: its collectives never mix with those of this one.

        They run over a gloo group of their own, on values in host memory, and wait for hours if need be, since they wait for
        disks. All ranks call it.

        Returns:
            The mesh, without space groups; `leave` ends it.
        """
        group = dist.new_group(backend="gloo", timeout=_PATIENCE) if self.world > 1 else None
        return Mesh(self.rank, self.world, group=group)

    def leave(self) -> None:
        """Close the process group that `aside` made. No messages."""
        if self.group is not None:
            dist.destroy_process_group(self.group)

    @property
    def first(self) -> bool:
        """Whether this is the first rank, which writes files and reports."""
        return self.rank == 0

    @property
    def data(self) -> int:
        """The size of the data axis: the number of space groups that share the samples of a global batch."""
        return self.world // self.space.size

    @property
    def data_rank(self) -> int:
        """The place of this rank on the data axis."""
        return self.rank // self.space.size

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks in float64, without gradients. One all-reduce of 8 bytes a value."""
        total = values.detach().to(device=self.device, dtype=torch.float64, copy=True)
        if self.world > 1:
            dist.all_reduce(total, group=self.group)
        return total

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank. One all-reduce of 8 bytes."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def barrier(self) -> None:
        """Wait until all ranks have called this. One barrier."""
        if self.world > 1:
            dist.barrier(group=self.group)

    def broadcast(self, value: Any) -> Any:
        """Return the first rank's value on every rank. One broadcast of its pickled bytes between our own processes."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks in their order. One all-gather of pickled bytes between our own processes."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def gather_pieces(self, piece: Tensor) -> list[Tensor]:
        """Return the pieces of all ranks, which have one shape, in the order of ranks. One all-gather of their bytes."""
        if self.world == 1:
            return [piece]
        pieces = [torch.empty_like(piece) for _ in range(self.world)]
        dist.all_gather(pieces, piece.contiguous(), group=self.group)
        return pieces

    def slice(self, count: int) -> slice:
        """Return this space group's share of `count` samples, the share that `records.feed` reads."""
        return rank_slice(count, self.data_rank, self.data)
