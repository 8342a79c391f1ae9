"""Samples of a file in the order and shape that a set stores, a block at a time.

Shapes: a target is "YX" for steady equations, "TYX" where channels are frames, "TX" where rows are times. Must not know which
array was chosen for which channel, nor why (mapping.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pidscale.convert.layouts.source import Array, Source

BLOCK_BYTES = 2**25  # read from a file at once


@dataclass(frozen=True)
class Pick:
    """One array for one slot (a channel, or a species whose frames are channels): its axes, its component, its factor."""

    slot: str
    array: Array
    axes: str
    component: int | None
    scale: float

    def length(self, axis: str) -> int:
        """Points along an axis; 1 where the array does not have it."""
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1

    def describe(self) -> dict[str, Any]:
        """Plain values for the request."""
        plain = {"array": self.array.name, "axes": self.axes, "component": self.component, "scale": self.scale}
        return {**plain, "stored": str(self.array.dtype)}


@dataclass(frozen=True)
class Reading:
    """How samples are read.

    phases: the two values of a boolean coefficient (low, high). times: which are taken. ends: points dropped at the end of
    (Y, X).
    """

    source: Source
    target: str
    picks: tuple[Pick, ...]
    count: int
    times: range
    ends: tuple[int, int] = (0, 0)
    phases: tuple[float, float] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        """Points (Y, X) of a stored field; times and places where rows are times."""
        first = self.picks[0]
        rows = len(self.times) if self.target == "TX" else first.length("Y") - self.ends[0]
        return rows, first.length("X") - self.ends[1]

    @property
    def block(self) -> int:
        """Samples that are read at once."""
        one = sum(math.prod(p.array.shape) // p.length("N") * p.array.dtype.itemsize for p in self.picks)
        return max(1, BLOCK_BYTES // max(1, one))

    def read(self, first: int, last: int) -> np.ndarray:
        """Samples [first, last) as float32 [n, C, Y, X], in the order of the equation's channels."""
        with np.errstate(over="ignore"):
            parts = [self._part(pick, first, last).astype(np.float32) for pick in self.picks]
        if self.target == "TX":
            return np.ascontiguousarray(np.stack(parts, axis=1))
        stacked = np.stack(parts, axis=-3)  # [n, (T), S or C, Y, X]
        return np.ascontiguousarray(stacked.reshape(last - first, -1, *stacked.shape[-2:]))

    def _part(self, pick: Pick, first: int, last: int) -> np.ndarray:
        """One slot, [n, T, Y, X], [n, T, X] or [n, Y, X]."""
        times = slice(self.times.start, self.times.stop, self.times.step)
        some = {"N": slice(first, last), "T": times if "T" in self.target else slice(0, 1)}
        some |= {"Y": slice(0, pick.length("Y") - self.ends[0]), "X": slice(0, pick.length("X") - self.ends[1])}
        at = pick.component or 0
        values = self.source.read(pick.array, tuple(some.get(a, slice(at, at + 1)) for a in pick.axes))
        order = "N" + self.target
        values = values.squeeze(tuple(i for i, a in enumerate(pick.axes) if a not in order))
        kept = [a for a in pick.axes if a in order]
        values = values.transpose([kept.index(a) for a in order])
        if values.dtype == bool:
            values = np.where(values, self.phases[1], self.phases[0])
        return values * pick.scale if pick.scale != 1.0 else values

    def spot(self, number: int, channel: int, y: int, x: int) -> tuple[str, str]:
        """Where a value of a stored sample [C, Y, X] is in the file, and what the file has there, for messages."""
        pick, frame = self.picks[channel % len(self.picks)], channel // len(self.picks)
        time = self.times[frame] if self.target == "TYX" else self.times[y] if self.target == "TX" else 0
        at = {"N": number, "T": time, "Y": y, "X": x, "S": pick.component or 0}
        index = tuple(slice(at[axis], at[axis] + 1) for axis in pick.axes)
        value = self.source.read(pick.array, index).reshape(-1)[0]
        told = ["t" if axis == "T" else axis.lower() for axis in self.target]
        where = ", ".join(f"{name} {at[name.upper()]}" for name in told)
        why = pick.array.why(index) if np.isnan(value) else ""
        return f"{pick.slot}, array '{pick.array.name}', at {where}", why or f"{value:g}"

    def blocks(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Samples of rising numbers, a block at a time: numbers and fields [n, C, Y, X]."""
        at = 0
        while at < len(numbers):
            end = at
            while end < len(numbers) and numbers[end] < numbers[at] + self.block:
                end += 1
            some = list(numbers[at:end])
            yield some, self.read(some[0], some[-1] + 1)[[n - some[0] for n in some]]
            at = end
