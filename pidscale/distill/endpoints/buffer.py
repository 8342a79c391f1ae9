"""A bounded buffer of endpoints, each used several times; what is used at a step is a function of the step alone.

The buffer has `depth` slots, each a row of one endpoint for every position of the global batch. In a pass of `depth` steps
every slot is used once, in an order of its own; after `reuse` passes a slot's row is replaced, the slots taking turns, so
that new rows are needed at an even rate. For that, the first row of slot s serves s mod `reuse` passes fewer; the last step
cuts off the rows that are still in the buffer. Position j of a batch only ever meets endpoints j, j + B, j + 2 B, ...: so
each rank holds its own positions and nothing is exchanged, and another number of ranks sees the same global batches.

Resume needs the step alone: rows in the buffer are made again from their counters. Knows no ranks and no networks, nor when
rows are made: whoever makes them learns beforehand in which order they will be wanted.
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
    """The order of the slots in one pass, asked for at each of its steps."""
    return seeds.permutation(seed, "distill/ring", turn, depth)


@dataclass
class RowOrder:
    """Which endpoints a rank uses at which step.

    Attributes:
        depth: Slots of the buffer.
        reuse: How many passes a row serves; the first and the last row of a slot may serve fewer.
        batch: Samples of a global batch.
        first: This rank's first position in it.
        last: The position after its last one.
        seed: The run's, which decides the order of the slots in each pass.
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
        """Return how often the row of a slot has been replaced when this step uses it."""
        return (step // self.depth + slot % self.reuse) // self.reuse

    def counters(self, slot: int, generation: int) -> torch.Tensor:
        """Return the counters of this rank's endpoints in a row, int64 [last - first]."""
        row = generation * self.depth + slot
        return torch.arange(row * self.batch + self.first, row * self.batch + self.last)

    def rows_before(self, steps: int) -> int:
        """Return one more than the greatest row that the first `steps` steps use: that of the last pass of some slot."""
        turn, within = divmod(steps, self.depth)
        slots = np.arange(self.depth)
        passes = np.full(self.depth, turn - 1)  # the last one in which each slot is used; -1: in none
        passes[_order(self.seed, turn, self.depth)[:within]] = turn
        rows = (passes + slots % self.reuse) // self.reuse * self.depth + slots
        return 1 + int(rows[passes >= 0].max())

    def new_rows(self, first: int, last: int, there: dict[int, int]) -> Iterator[torch.Tensor]:
        """Yield the counters of the rows that some steps need beside those that are there, in the order of the steps.

        Args:
            first: The first step.
            last: The step after the last one.
            there: Generation by slot; it is kept up to date.

        Yields:
            Counters as `counters` returns them.
        """
        for step in range(first, last):
            slot = self.slot(step)
            generation = self.generation(slot, step)
            if there.get(slot) != generation:
                there[slot] = generation
                yield self.counters(slot, generation)


@dataclass
class EndpointBuffer(RowOrder):
    """The endpoints themselves, as they are made.

    Attributes:
        make: Makes endpoints from their counters.
        rows: Generation and endpoints by slot.
        made: Rows that were made.
        used: Rows that were used.
    """

    make: Callable[[torch.Tensor], Endpoints]
    rows: dict[int, tuple[int, Endpoints]] = field(default_factory=dict)
    made: int = 0
    used: int = 0

    def wanted(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """Return the counters of the rows that the steps from `first` to before `last` will ask for, in that order."""
        return self.new_rows(first, last, {slot: generation for slot, (generation, _) in self.rows.items()})

    def take(self, step: int) -> Endpoints:
        """Return the endpoints of this rank at a step, made now if their row is not in the buffer."""
        self.used += 1
        slot = self.slot(step)
        return self.row(slot, self.generation(slot, step))

    def row(self, slot: int, generation: int) -> Endpoints:
        """Return this rank's endpoints of a row, made now if it is not in the buffer."""
        if slot not in self.rows or self.rows[slot][0] != generation:
            self.rows[slot] = (generation, self.make(self.counters(slot, generation)))
            self.made += 1
        return self.rows[slot][1]
