"""Reads samples of a file in the order and shape in which a set stores them, a block at a time.

The axes of a sample are "YX" for steady equations, "TYX" where channels are frames, "TX" where rows are times. Must not know
which array was chosen for which channel, nor why (mapping.py).
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
    """The array that was picked for one slot. A slot is a channel, or a species whose frames are channels.

    Attributes:
        slot: The name of the slot.
        array: The array in the file.
        axes: One letter for each dim of the array.
        component: The index along axis S; None if the array has no such axis.
        scale: The factor that turns the file's numbers into those of the set.
    """

    slot: str
    array: Array
    axes: str
    component: int | None
    scale: float

    def length(self, axis: str) -> int:
        """Return the length of an axis, 1 if the array does not have it."""
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1

    def describe(self) -> dict[str, Any]:
        """Return plain values for the request of the set."""
        plain = {"array": self.array.name, "axes": self.axes, "component": self.component, "scale": self.scale}
        return {**plain, "stored": str(self.array.dtype)}


@dataclass(frozen=True)
class SampleReader:
    """Reads the samples of a source.

    Attributes:
        source: The open file, or several that are read as one.
        sample_axes: The axes of a sample: "YX", "TYX" or "TX".
        picks: The array of each slot, in the order of the equation's channels or species.
        count: The number of samples.
        times: The indices of the times that are used.
        dropped_ends: The number of points (Y, X) that are dropped at the end of each axis.
        phases: The values (low, high) that a boolean coefficient becomes.
    """

    source: Source
    sample_axes: str
    picks: tuple[Pick, ...]
    count: int
    times: range
    dropped_ends: tuple[int, int] = (0, 0)
    phases: tuple[float, float] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (Y, X) of a stored field; (times, X) where rows are times."""
        first = self.picks[0]
        rows = len(self.times) if self.sample_axes == "TX" else first.length("Y") - self.dropped_ends[0]
        return rows, first.length("X") - self.dropped_ends[1]

    @property
    def block(self) -> int:
        """Number of samples that are read at once."""
        one = sum(math.prod(p.array.shape) // p.length("N") * p.array.dtype.itemsize for p in self.picks)
        return max(1, BLOCK_BYTES // max(1, one))

    def read(self, first: int, last: int) -> np.ndarray:
        """Read samples [first, last) as float32 [n, C, Y, X], in the order of the equation's channels."""
        with np.errstate(over="ignore"):
            parts = [self._read_slot(pick, first, last).astype(np.float32) for pick in self.picks]
        if self.sample_axes == "TX":
            return np.ascontiguousarray(np.stack(parts, axis=1))
        stacked = np.stack(parts, axis=-3)  # [n, (T), S or C, Y, X]
        return np.ascontiguousarray(stacked.reshape(last - first, -1, *stacked.shape[-2:]))

    def _read_slot(self, pick: Pick, first: int, last: int) -> np.ndarray:
        """Read one slot as [n, T, Y, X], [n, T, X] or [n, Y, X]."""
        times = slice(self.times.start, self.times.stop, self.times.step)
        slices = {"N": slice(first, last), "T": times if "T" in self.sample_axes else slice(0, 1)}
        slices["Y"] = slice(0, pick.length("Y") - self.dropped_ends[0])
        slices["X"] = slice(0, pick.length("X") - self.dropped_ends[1])
        at = pick.component or 0
        values = self.source.read(pick.array, tuple(slices.get(a, slice(at, at + 1)) for a in pick.axes))
        order = "N" + self.sample_axes
        values = values.squeeze(tuple(i for i, a in enumerate(pick.axes) if a not in order))
        kept = [a for a in pick.axes if a in order]
        values = values.transpose([kept.index(a) for a in order])
        if values.dtype == bool:
            values = np.where(values, self.phases[1], self.phases[0])
        return values * pick.scale if pick.scale != 1.0 else values

    def describe_value(self, number: int, channel: int, y: int, x: int) -> tuple[str, str]:
        """Say where one value of a stored sample [C, Y, X] lies in the file, and what the file has there.

        Args:
            number: The number of the sample.
            channel: The channel of the value.
            y: Its row.
            x: Its column.

        Returns:
            The place, and the value or the reason why it is missing; both for messages.
        """
        pick = self.picks[channel % len(self.picks)]
        frame = channel // len(self.picks)
        time = self.times[frame] if self.sample_axes == "TYX" else self.times[y] if self.sample_axes == "TX" else 0
        at = {"N": number, "T": time, "Y": y, "X": x, "S": pick.component or 0}
        index = tuple(slice(at[axis], at[axis] + 1) for axis in pick.axes)
        value = self.source.read(pick.array, index).reshape(-1)[0]
        place = ", ".join(f"{axis.lower()} {at[axis]}" for axis in self.sample_axes)
        reason = pick.array.missing_reason(index) if np.isnan(value) else ""
        return f"{pick.slot}, array '{pick.array.name}', at {place}", reason or f"{value:g}"

    def blocks(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Read chosen samples a block at a time.

        Args:
            numbers: Sample numbers in ascending order.

        Yields:
            The numbers of a block and its fields, float32 [n, C, Y, X].
        """
        at = 0
        while at < len(numbers):
            end = at
            while end < len(numbers) and numbers[end] < numbers[at] + self.block:
                end += 1
            chosen = list(numbers[at:end])
            yield chosen, self.read(chosen[0], chosen[-1] + 1)[[n - chosen[0] for n in chosen]]
            at = end
