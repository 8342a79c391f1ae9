"""Samples that must not be stored unnoticed: missing values, declared or not, and values that float32 cannot hold.

Must not know shards, or what happens to such samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidscale.convert.sample_reader import SampleReader

# Numbers that programs write for missing values, as float32: fill values of netCDF, and those of weather, ocean and satellite
# data. One counts as missing only if it is farther from all other values of its sample than those are from each other.
_SIZES = (999, 9999, 99999, 999999, 9999999, 1e15, 1e20, 1e24, 1e30, 1e34, 1e35, 1e36, 9.969209968386869e36, 1e37)
_OTHERS = (-888, -999.9, -999.99, -9999.9, -9999.99, -32768, -32767, 32767, 65535, -(2**31), 2**31 - 1, 2**32 - 1)
MISSING_MARKS = np.array([*_SIZES, *(-size for size in _SIZES), *_OTHERS], dtype=np.float32)
# a value above LARGE that is also more than ABSURD_RATIO times the median of its sample is not a physical one
LARGE = 1e15
ABSURD_RATIO = 1e12
MAX_SHOWN = 3  # samples that a message describes, and ranges of numbers that it lists


@dataclass(frozen=True)
class BadSample:
    """A sample with missing values or values beyond float32.

    Attributes:
        number: The number of the sample.
        count: The number of such values.
        channel: The channel of the first such value.
        y: Its row.
        x: Its column.
        finite: Whether the values are finite and only look like marks of missing values.
        others: The least and the greatest other value of the field, where the values are finite.
    """

    number: int
    count: int
    channel: int
    y: int
    x: int
    finite: bool
    others: tuple[float, float] | None = None

    def describe(self, reader: SampleReader) -> str:
        """Say what is wrong with the sample, and where, for a message."""
        place, value = reader.describe_value(self.number, self.channel, self.y, self.x)
        if self.finite:
            others = "" if self.others is None else f", other values from {self.others[0]:.4g} to {self.others[1]:.4g}"
            value = f"{value}{others}: a common mark of a missing value, which the file does not declare"
        elif value.startswith(("nan", "inf", "-inf")):
            value = f"{value}, not finite"
        elif not value.startswith("a declared") and "valid range" not in value:
            value = f"{value}, not finite in float32"
        more = f", and {self.count - 1} more" if self.count > 1 else ""
        return f"{_sample_name(reader, self.number)} ({place}: {value}{more})"


@dataclass(frozen=True)
class LostSample:
    """A sample for which the file has no value of a parameter.

    Attributes:
        number: The number of the sample.
        reason: Which parameter is missing, and what the file has instead.
        finite: Always False: the missing value cannot be accepted by force.
    """

    number: int
    reason: str
    finite: bool = False

    def describe(self, reader: SampleReader) -> str:
        """Say what is wrong with the sample, for a message."""
        return f"{_sample_name(reader, self.number)} ({self.reason})"


def _sample_name(reader: SampleReader, number: int) -> str:
    path, local = reader.source.locate(number)
    return f"{path.name}: sample {local}" if reader.source.files else f"sample {local}"


def find_bad_samples(reader: SampleReader, fields: np.ndarray, first: int) -> list[BadSample]:
    """Find the bad samples of a block.

    Args:
        reader: The reader that the block comes from.
        fields: The samples, float32 [n, C, Y, X].
        first: The number of the first sample.

    Returns:
        The bad samples in ascending order.
    """
    found = _find_not_finite(fields, first)
    known = {one.number for one in found}
    slots = len(reader.picks)
    for slot in range(slots):
        part = fields[:, slot::slots]  # the species of one frame are neighbours
        low = part.min(axis=(1, 2, 3))
        high = part.max(axis=(1, 2, 3))
        suspect = np.isin(low, MISSING_MARKS) | np.isin(high, MISSING_MARKS) | (np.maximum(-low, high) > LARGE)
        for i in np.flatnonzero(suspect):
            number = first + int(i)
            marked = _find_marks(part[i])
            if number not in known and marked.any():
                frame, y, x = (int(v) for v in np.argwhere(marked)[0])
                others = part[i][~marked]
                ends = (float(others.min()), float(others.max())) if others.size else None
                found.append(BadSample(number, int(marked.sum()), frame * slots + slot, y, x, True, ends))
                known.add(number)
    return sorted(found, key=lambda one: one.number)


def _find_not_finite(fields: np.ndarray, first: int) -> list[BadSample]:
    """Find the samples [n, C, Y, X] with values that are not finite."""
    found = []
    wrong = ~np.isfinite(fields)
    for i in np.flatnonzero(wrong.any(axis=(1, 2, 3))):
        channel, y, x = (int(v) for v in np.argwhere(wrong[i])[0])
        found.append(BadSample(first + int(i), int(wrong[i].sum()), channel, y, x, False))
    return found


def _find_marks(values: np.ndarray) -> np.ndarray:
    """Return where finite values mark missing ones: common marks far from all other values, or absurdly large values."""
    marked = np.isin(values, MISSING_MARKS)
    others = values[~marked].astype(np.float64)
    if others.size and marked.any():
        low = float(others.min())
        high = float(others.max())
        span = max(high - low, np.spacing(np.float32(max(abs(low), abs(high)))))
        gap = np.maximum(values.astype(np.float64) - high, low - values.astype(np.float64))
        marked &= gap > span
    size = abs(values.astype(np.float64))
    found: np.ndarray = marked | ((size > LARGE) & (size > ABSURD_RATIO * float(np.median(size))))
    return found


def find_marked_numbers(values: np.ndarray) -> np.ndarray:
    """Return where numbers [N], one for each sample, are common marks of missing values."""
    return _find_marks(values.astype(np.float32))


def format_numbers(numbers: Sequence[int], most: int = MAX_SHOWN) -> str:
    """Format numbers in short, such as "1, 4-9 and 12 more".

    Args:
        numbers: Numbers in ascending order.
        most: The number of ranges that are listed; the numbers beyond them are counted.

    Returns:
        The text.
    """
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in ranges[:most]]
    left = sum(b - a + 1 for a, b in ranges[most:])
    return ", ".join(shown) + (f" and {left} more" if left else "")
