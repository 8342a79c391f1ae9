"""The ranks of a run and the few collectives that the loops need. Knows no physics and no models.

One process is a mesh of size 1: nothing is exchanged and torch.distributed need not be initialised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def share(count: int, rank: int, world: int) -> slice:
    """The contiguous share of `count` items that a rank takes; shares differ by one item at most."""
    return slice(count * rank // world, count * (rank + 1) // world)


@dataclass(frozen=True)
class Mesh:
    """This process among all: rank, world size, and its device."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

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

    def share(self, value: Any) -> Any:
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
        """This rank's share of `count` items, the same one that `records.feed` reads."""
        return share(count, self.rank, self.world)
