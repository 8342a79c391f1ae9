"""Which bytes of a sample hold some of its rows, piece by piece. Knows shapes only."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pidscale.records.format import ROW_BLOCK

Block = tuple[int, int, int]  # start and stop in the buffer, number among the sample's checksums [C * blocks]
Piece = tuple[int, int, int, list[Block]]  # start and stop in the buffer, offset in the array, blocks within


@dataclass(frozen=True)
class ReadPlan:
    """A plan for reading the same rows of any sample. It is made once, so that reading a small sample takes few operations.

    Attributes:
        held: The shape [C, Y, X] of the buffer. With checks its rows are whole row blocks.
        skip: The number of rows in the buffer before the first wanted one.
        pieces: The reads: start and stop in the buffer in bytes, offset from the beginning of the stored array in bytes, and
            the row blocks within.
        bytes: The bytes of the buffer.
    """

    held: tuple[int, int, int]
    skip: int
    pieces: list[Piece]
    bytes: int

    @staticmethod
    def of(shape: tuple[int, int, int], first: int, last: int, verify: bool, most: int) -> ReadPlan:
        """Plan how to read the rows from `first` to `last`.

        Args:
            shape: The shape (C, Y, X) of every sample.
            first: The first row.
            last: The row after the last one.
            verify: Whether row blocks are checked, and therefore read as a whole.
            most: The largest number of bytes of a piece.

        Returns:
            The plan.
        """
        channels, height, width = shape
        low = first
        high = last
        if verify and first < last:
            low = first - first % ROW_BLOCK
            high = min(height, -(-last // ROW_BLOCK) * ROW_BLOCK)
        pieces: list[Piece] = []
        blocks = -(-height // ROW_BLOCK)
        wanted = range(low // ROW_BLOCK, -(-high // ROW_BLOCK)) if low < high else range(0)
        start = 0
        for c, block in itertools.product(range(channels), wanted):
            top = max(low, block * ROW_BLOCK)
            bottom = min(high, (block + 1) * ROW_BLOCK)
            stop = start + 4 * width * (bottom - top)
            offset = 4 * width * (c * height + top)
            begin, _, origin, held = pieces[-1] if pieces else (0, 0, -1, [])
            if offset - origin == start - begin and stop - begin <= most:  # continues the last piece
                held.append((start, stop, c * blocks + block))
                pieces[-1] = (begin, stop, origin, held)
            else:
                pieces.append((start, stop, offset, [(start, stop, c * blocks + block)]))
            start = stop
        return ReadPlan((channels, high - low, width), first - low, pieces, start)
