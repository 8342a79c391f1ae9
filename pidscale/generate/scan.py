"""One pass over a file before anything is written: finite values, what the edges show, equal samples, a coefficient's values.

Must not know shards. Memory: one block of samples, 16 bytes a sample, and sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import xxhash

from pidscale.config import UserError
from pidscale.generate.mapping import Reading
from pidscale.generate.points import Edges

_SAME = 1e-4  # relative difference of two values of a coefficient that are one phase


@dataclass
class Scan:
    """edges: of each slot. digests: of each sample's stored bytes. low, high: of each channel [C].

    values: distinct ones of the first channel, three at most.
    """

    edges: dict[str, Edges] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    low: np.ndarray = field(default_factory=lambda: np.array(np.inf))
    high: np.ndarray = field(default_factory=lambda: np.array(-np.inf))

    def kept(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Samples without later copies, and pairs (copy, original)."""
        first: dict[bytes, int] = {}
        kept, copies = [], []
        for number, digest in enumerate(self.digests):
            if digest in first:
                copies.append((number, first[digest]))
            else:
                first[digest] = number
                kept.append(number)
        return kept, copies


def scan(reading: Reading, progress: Callable[[int, int], None] | None = None) -> Scan:
    """Read every sample once. UserError names sample and channel of a value that float32 cannot hold, or a flat channel."""
    found = Scan({pick.slot: Edges() for pick in reading.picks})
    for first in range(0, reading.count, reading.block):
        last = min(first + reading.block, reading.count)
        fields = reading.read(first, last)
        _check_finite(reading, fields, first)
        found.digests += [xxhash.xxh3_128_digest(one.data) for one in fields]
        for i, pick in enumerate(reading.picks):
            part = fields[:, i :: len(reading.picks)]  # frames have their species side by side
            found.edges[pick.slot].add(part.reshape(-1, *part.shape[-2:]).astype(np.float64))
        found.low = np.minimum(found.low, fields.min(axis=(0, 2, 3)))
        found.high = np.maximum(found.high, fields.max(axis=(0, 2, 3)))
        _collect(found, fields[:, 0])
        if progress is not None:
            progress(last, reading.count)
    for channel in np.flatnonzero(found.low == found.high):
        pick = reading.picks[channel % len(reading.picks)]
        raise UserError(
            f"{reading.source.path}: {pick.slot} (array '{pick.array.name}') is {found.low[channel]:g} everywhere"
            + f" in channel {channel}" * (len(found.low) > len(reading.picks))
            + "; nothing can be learned from it, check the file"
        )
    return found


def _check_finite(reading: Reading, fields: np.ndarray, first: int) -> None:
    if np.isfinite(fields).all():
        return
    wrong = ~np.isfinite(fields).all(axis=(2, 3))
    number, channel = (int(i) for i in np.argwhere(wrong)[0])
    pick = reading.picks[channel % len(reading.picks)]
    raise UserError(
        f"{reading.source.path}: sample {first + number}, {pick.slot} (array '{pick.array.name}') holds values that are not "
        "finite in float32; leave that sample out of the file, or set scale"
    )


def _collect(found: Scan, values: np.ndarray) -> None:
    """Keep up to three distinct values; a third says that there are no two phases."""
    while len(found.values) < 3:
        known = np.array(found.values).reshape(-1, 1, 1, 1)
        new = values[~(abs(values - known) <= _SAME * abs(known)).any(axis=0)] if found.values else values
        if new.size == 0:
            return
        found.values.append(float(new.reshape(-1)[0]))
