"""Samples that must not be stored without a word: missing values, declared or not, and what float32 loses.

Must not know shards, or what becomes of such samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidscale.convert.reading import Reading

# Numbers that programs write where they have none, as float32 has them: fill values of netCDF, and those of weather, ocean
# and satellite data. One counts only where it stands farther from all other values of its sample than those from each other.
_SIZES = (999, 9999, 99999, 999999, 9999999, 1e15, 1e20, 1e24, 1e30, 1e34, 1e35, 1e36, 9.969209968386869e36, 1e37)
_OTHERS = (-888, -999.9, -999.99, -9999.9, -9999.99, -32768, -32767, 32767, 65535, -(2**31), 2**31 - 1, 2**32 - 1)
MARKS = np.array([*_SIZES, *(-size for size in _SIZES), *_OTHERS], dtype=np.float32)
LARGE, ABSURD = 1e15, 1e12  # a value above both, the second times the median of its sample, is no physical one
SHOWN = 3  # samples that are described, and stretches of numbers that are listed


@dataclass(frozen=True)
class Bad:
    """A sample with values that are none: how many of them, and where the first is. finite: they look like numbers.

    rest: least and greatest of the other values of that field, where they look like numbers.
    """

    number: int
    count: int
    channel: int
    y: int
    x: int
    finite: bool
    rest: tuple[float, float] | None = None

    def told(self, reading: Reading) -> str:
        """What is wrong with it, and where."""
        where, what = reading.spot(self.number, self.channel, self.y, self.x)
        if self.finite:
            rest = "" if self.rest is None else f", beside values of {self.rest[0]:.4g} to {self.rest[1]:.4g}"
            what = f"{what}{rest}: a usual mark of a missing value, which the file does not declare"
        elif what.startswith(("nan", "inf", "-inf")):
            what = f"{what}, not finite"
        elif not what.startswith("a declared") and "valid range" not in what:
            what = f"{what}, not finite in float32"
        more = f", and {self.count - 1} more" if self.count > 1 else ""
        return f"{_named(reading, self.number)} ({where}: {what}{more})"


@dataclass(frozen=True)
class Lost:
    """A sample without one of its numbers. why: which, and what it is instead."""

    number: int
    why: str
    finite: bool = False

    def told(self, reading: Reading) -> str:
        """What is wrong with it."""
        return f"{_named(reading, self.number)} ({self.why})"


def _named(reading: Reading, number: int) -> str:
    path, own = reading.source.place(number)
    return f"{path.name}: sample {own}" if reading.source.files else f"sample {own}"


def bad_of(reading: Reading, fields: np.ndarray, first: int) -> list[Bad]:
    """The bad ones of samples [n, C, Y, X], float32, of which the first has this number."""
    found = []
    wild = ~np.isfinite(fields)
    for i in np.flatnonzero(wild.any(axis=(1, 2, 3))):
        channel, y, x = (int(v) for v in np.argwhere(wild[i])[0])
        found.append(Bad(first + int(i), int(wild[i].sum()), channel, y, x, False))
    known = {one.number for one in found}
    slots = len(reading.picks)
    for slot in range(slots):
        part = fields[:, slot::slots]  # frames have their species side by side
        low, high = part.min(axis=(1, 2, 3)), part.max(axis=(1, 2, 3))
        doubtful = np.isin(low, MARKS) | np.isin(high, MARKS) | (np.maximum(-low, high) > LARGE)
        for i in np.flatnonzero(doubtful):
            marked = _marked(part[i])
            if first + int(i) not in known and marked.any():
                frame, y, x = (int(v) for v in np.argwhere(marked)[0])
                rest = part[i][~marked]
                ends = (float(rest.min()), float(rest.max())) if rest.size else None
                found.append(Bad(first + int(i), int(marked.sum()), frame * slots + slot, y, x, True, ends))
                known.add(first + int(i))
    return sorted(found, key=lambda one: one.number)


def _marked(values: np.ndarray) -> np.ndarray:
    """Where finite values are marks of missing ones: usual marks that stand apart, or beyond what their fellows allow."""
    marked = np.isin(values, MARKS)
    rest = values[~marked].astype(np.float64)
    if rest.size and marked.any():
        low, high = float(rest.min()), float(rest.max())
        span = max(high - low, np.spacing(np.float32(max(abs(low), abs(high)))))
        gap = np.maximum(values.astype(np.float64) - high, low - values.astype(np.float64))
        marked &= gap > span
    size = abs(values.astype(np.float64))
    absurd: np.ndarray = marked | ((size > LARGE) & (size > ABSURD * float(np.median(size))))
    return absurd


def marked_scalars(values: np.ndarray) -> np.ndarray:
    """Where numbers [N], one for each sample, are marks of missing ones."""
    return _marked(values.astype(np.float32))


def numbered(numbers: Sequence[int], most: int = SHOWN) -> str:
    """Rising numbers in short, stretches as 4-9: all of them, or the first stretches and how many more there are."""
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][1] + 1:
            stretches[-1][1] = number
        else:
            stretches.append([number, number])
    said = [str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in stretches[:most]]
    left = sum(b - a + 1 for a, b in stretches[most:])
    return ", ".join(said) + (f" and {left} more" if left else "")
