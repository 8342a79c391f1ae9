"""One pass over a file before anything is written: bad samples, what the edges show, equal samples, a coefficient's values.

Must not know shards. Memory: one block of samples, 16 bytes a sample, and sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from pidscale.config import UserError
from pidscale.convert.grid_checks import Edges
from pidscale.convert.missing import SHOWN, Bad, Lost, bad_of, numbered
from pidscale.convert.reading import Reading

_SAME = 1e-4  # relative difference of two values of a coefficient that are one phase


@dataclass
class Scan:
    """edges: of each slot. digests: of each sample's stored bytes. low, high: of each channel [C]. bad: samples left out.

    values: distinct ones of the first channel, three at most. doubtful: samples taken although they look bad. All but
    `digests` and those two are of the samples that are not left out.
    """

    edges: dict[str, Edges] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    bad: list[Bad | Lost] = field(default_factory=list)
    doubtful: list[Bad | Lost] = field(default_factory=list)
    low: np.ndarray = field(default_factory=lambda: np.array(np.inf))
    high: np.ndarray = field(default_factory=lambda: np.array(-np.inf))

    def kept(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Samples that are not bad, without later copies, and pairs (copy, original)."""
        first: dict[bytes, int] = {}
        kept, copies = [], []
        without = {one.number for one in self.bad}
        for number, digest in enumerate(self.digests):
            if number in without:
                continue
            if digest in first:
                copies.append((number, first[digest]))
            else:
                first[digest] = number
                kept.append(number)
        return kept, copies


def scan(
    reading: Reading,
    lost: Mapping[int, str],
    bad: str = "refuse",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Read every sample once. UserError names the samples with values that are none, or a flat channel.

    lost: samples that are bad for want of a number, and why. bad: refuse bad samples, or omit them. force: take numbers that
    only look like missing values.
    """
    found = Scan({pick.slot: Edges() for pick in reading.picks})
    for first in range(0, reading.count, reading.block):
        last = min(first + reading.block, reading.count)
        fields = reading.read(first, last)
        found.digests += [xxhash.xxh3_128_digest(one.data) for one in fields]
        wrong = bad_of(reading, fields, first)
        found.doubtful += [one for one in wrong if one.finite and force]
        out: dict[int, Bad | Lost] = {one.number: one for one in wrong if not (one.finite and force)}
        out |= {number: Lost(number, lost[number]) for number in sorted(lost) if first <= number < last}
        found.bad += [out[number] for number in sorted(out)]
        _add(found, reading, np.delete(fields, [number - first for number in out], axis=0) if out else fields)
        if progress is not None:
            progress(last, reading.count)
    if found.bad and (bad == "refuse" or len(found.bad) == reading.count):
        raise UserError(refusal(reading, found.bad))
    for channel in np.flatnonzero(found.low == found.high):
        pick = reading.picks[channel % len(reading.picks)]
        raise UserError(
            f"{reading.source.path}: {pick.slot} (array '{pick.array.name}') is {found.low[channel]:g} everywhere"
            + f" in channel {channel}" * (len(found.low) > len(reading.picks))
            + "; nothing can be learned from it, check the file"
        )
    return found


def _add(found: Scan, reading: Reading, fields: np.ndarray) -> None:
    """Take in samples that are not bad."""
    if not len(fields):
        return
    for i, pick in enumerate(reading.picks):
        part = fields[:, i :: len(reading.picks)]  # frames have their species side by side
        found.edges[pick.slot].add(part.reshape(-1, *part.shape[-2:]).astype(np.float64))
    found.low = np.minimum(found.low, fields.min(axis=(0, 2, 3)))
    found.high = np.maximum(found.high, fields.max(axis=(0, 2, 3)))
    _collect(found, fields[:, 0])


def described(reading: Reading, bad: Sequence[Bad | Lost]) -> str:
    """Bad samples for a message: how many, the first ones with place and value, and the numbers of the others."""
    told = ", ".join(one.told(reading) for one in bad[:SHOWN])
    more = [one.number for one in bad[SHOWN:]]
    if reading.source.files:
        rest = f"; and {len(more)} more" if more else ""
    else:
        rest = f"; also samples {numbered(more, 20)}" if more else ""
    return f"{len(bad)} of {reading.count} samples hold values that are none: {told}{rest}"


def refusal(reading: Reading, bad: Sequence[Bad | Lost]) -> str:
    """The line that refuses them, with what to do."""
    remedy = "mend the file, or set bad=omit to leave them out"
    if len(bad) == reading.count:
        remedy = "nothing would be left without them; mend the file, or set scale where values are beyond float32"
    if all(one.finite for one in bad):
        remedy += ", or force=true to take the numbers as they stand"
    return f"{reading.source.path}: {described(reading, bad)}; {remedy}"


def _collect(found: Scan, values: np.ndarray) -> None:
    """Keep up to three distinct values; a third says that there are no two phases."""
    while len(found.values) < 3:
        known = np.array(found.values).reshape(-1, 1, 1, 1)
        new = values[~(abs(values - known) <= _SAME * abs(known)).any(axis=0)] if found.values else values
        if new.size == 0:
            return
        found.values.append(float(new.reshape(-1)[0]))
