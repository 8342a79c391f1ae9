"""A bounded buffer of endpoints, each used several times. The endpoints of a step depend only on its number.

The buffer has `depth` slots; each holds one row, with one endpoint for every position of the global batch. Every pass takes
`depth` steps and uses each slot once, in random order. After `reuse` passes, the row of a slot is replaced. The slots are
replaced in turn, so that new rows are needed at a constant rate: for that, the first row of slot s serves s mod `reuse`
passes fewer. The last step cuts off the rows that are still in the buffer. Position j of a batch only uses the endpoints j,
j + B, j + 2 B, ...: each rank holds its own positions, ranks exchange nothing, and the global batches do not depend on the
number of ranks.

Resuming requires only the number of the step: the rows in the buffer are made again from their counters. Knows no ranks and
no networks. It does not know either when rows are made: the supply receives the request order in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from pidscale import seeds
from pidscale.distill.endpoints.endpoint import Endpoints


@lru_cache(maxsize=8)
def _order(seed: int, turn: int, depth: int) -> np.ndarray:
    """Return the order of the slots in one pass; cached, because every step of the pass needs it."""
    return seeds.permutation(seed, "distill/ring", turn, depth)


@dataclass
class RowOrder:
    """The endpoints that a rank uses at each step.

    Attributes:
        depth: Number of slots in the buffer.
        reuse: Number of passes that each row serves; the first and the last row of a slot may serve fewer.
        batch: Number of samples in a global batch.
        first: First position of this rank in the global batch.
        last: Position after the last one of this rank.
        seed: Random seed of the run, which determines the order of the slots in each pass.
    """

    depth: int
    reuse: int
    batch: int
    first: int
    last: int
    seed: int

    def slot(self, step: int) -> int:
        """Return the slot used at a step."""
        turn, within = divmod(step, self.depth)
        return int(_order(self.seed, turn, self.depth)[within])

    def generation(self, slot: int, step: int) -> int:
        """Return how many times the row of a slot has been replaced before a step uses it."""
        return (step // self.depth + slot % self.reuse) // self.reuse

    def counters(self, slot: int, generation: int) -> torch.Tensor:
        """Return the counters of this rank's endpoints in a row, int64 [last - first]."""
        row = generation * self.depth + slot
        return torch.arange(row * self.batch + self.first, row * self.batch + self.last)

    def rows_before(self, steps: int) -> int:
        """Return the number of rows needed for the first `steps` steps."""
        turn, within = divmod(steps, self.depth)
        slots = np.arange(self.depth)
        passes = np.full(self.depth, turn - 1)  # last pass in which each slot is used; -1: none
        passes[_order(self.seed, turn, self.depth)[:within]] = turn
        rows = (passes + slots % self.reuse) // self.reuse * self.depth + slots
        return 1 + int(rows[passes >= 0].max())

    def new_rows(self, first: int, last: int, there: dict[int, int]) -> Iterator[torch.Tensor]:
        """Yield the counters of the rows that a range of steps needs and that are not in the buffer, in order of use.

        Args:
            first: First step.
            last: Step after the last one.
            there: Generation of the row in each slot; updated in place.

        Yields:
            Counters as returned by `counters`.
        """
        for step in range(first, last):
            slot = self.slot(step)
            generation = self.generation(slot, step)
            if there.get(slot) != generation:
                there[slot] = generation
                yield self.counters(slot, generation)


@dataclass
class EndpointBuffer(RowOrder):
    """A buffer that holds the endpoints.

    Attributes:
        make: Returns the endpoints of given counters.
        rows: Generation and endpoints of the row in each slot.
        made: Number of rows made so far.
        used: Number of rows used so far.
    """

    make: Callable[[torch.Tensor], Endpoints]
    rows: dict[int, tuple[int, Endpoints]] = field(default_factory=dict)
    made: int = 0
    used: int = 0

    def wanted(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """Return the counters of the rows that the steps `first` to `last` (exclusive) will request, in this order."""
        return self.new_rows(first, last, {slot: generation for slot, (generation, _) in self.rows.items()})

    def take(self, step: int) -> Endpoints:
        """Return this rank's endpoints of a step; makes them if their row is not in the buffer."""
        self.used += 1
        slot = self.slot(step)
        return self.row(slot, self.generation(slot, step))

    def row(self, slot: int, generation: int) -> Endpoints:
        """Return this rank's endpoints of a row; makes them if the row is not in the buffer."""
        if slot not in self.rows or self.rows[slot][0] != generation:
            self.rows[slot] = (generation, self.make(self.counters(slot, generation)))
            self.made += 1
        return self.rows[slot][1]
