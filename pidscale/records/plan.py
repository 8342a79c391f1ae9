"""Which bytes of a sample hold some of its rows, piece by piece. Knows shapes only."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pidscale.records.layout import ROW_BLOCK

Block = tuple[int, int, int]  # start and stop in the buffer, number among the sample's checksums [C * blocks]


@dataclass(frozen=True)
class Plan:
    """How the same rows of any sample are read: what is made once, so that a small sample costs few steps.

    held: the shape [C, Y, X] of what is read, rows in whole blocks if these are checked; the wanted ones begin at `skip`.
    pieces: where a read goes (start and stop, bytes of `held`) and comes from (bytes after the array's begin), and the
    blocks in it: start, stop, number among the sample's checksums.
    """

    held: tuple[int, int, int]
    skip: int
    pieces: list[tuple[int, int, int, list[Block]]]
    bytes: int

    @staticmethod
    def of(shape: tuple[int, int, int], first: int, last: int, verify: bool, most: int) -> Plan:
        """The plan for rows [first, last) of samples of this shape. most: bytes of a piece."""
        channels, height, width = shape
        low, high = first, last
        if verify and first < last:
            low, high = first - first % ROW_BLOCK, min(height, -(-last // ROW_BLOCK) * ROW_BLOCK)
        pieces: list[tuple[int, int, int, list[Block]]] = []
        blocks = -(-height // ROW_BLOCK)
        wanted = range(low // ROW_BLOCK, -(-high // ROW_BLOCK)) if low < high else range(0)
        start = 0
        for c, block in itertools.product(range(channels), wanted):
            top, bottom = max(low, block * ROW_BLOCK), min(high, (block + 1) * ROW_BLOCK)
            stop, at = start + 4 * width * (bottom - top), 4 * width * (c * height + top)
            begin, _, origin, held = pieces[-1] if pieces else (0, 0, -1, [])
            if at - origin == start - begin and stop - begin <= most:  # goes on where the piece ends
                held.append((start, stop, c * blocks + block))
                pieces[-1] = (begin, stop, origin, held)
            else:
                pieces.append((start, stop, at, [(start, stop, c * blocks + block)]))
            start = stop
        return Plan((channels, high - low, width), first - low, pieces, start)
