"""One pass over a file before anything is written: bad samples, sums at the edges, copies, the values of a coefficient.

Must not know shards. Memory: one block of samples, 16 bytes a sample, and the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from pidscale.config import UserError
from pidscale.convert.grid_checks import EdgeSums
from pidscale.convert.missing import MAX_SHOWN, BadSample, LostSample, find_bad_samples, format_numbers
from pidscale.convert.sample_reader import SampleReader

_SAME_PHASE = 1e-4  # largest relative difference of two values of a coefficient that are one phase


@dataclass
class Scan:
    """Result of one pass over the samples.

    Attributes:
        edges: Sums at the edges, by slot, over the samples that are not bad.
        digests: A digest of the stored bytes of each sample, bad ones included.
        values: Up to three distinct values of the first channel, of samples that are not bad.
        bad: The samples that are omitted.
        suspect: The samples that look bad and are kept because of force=true.
        low: The least value of each channel [C], of samples that are not bad.
        high: The greatest value of each channel [C], of samples that are not bad.
    """

    edges: dict[str, EdgeSums] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    bad: list[BadSample | LostSample] = field(default_factory=list)
    suspect: list[BadSample | LostSample] = field(default_factory=list)
    low: np.ndarray = field(default_factory=lambda: np.array(np.inf))
    high: np.ndarray = field(default_factory=lambda: np.array(-np.inf))

    def distinct_samples(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the samples that are neither bad nor copies, and the copies as pairs (copy, original)."""
        first: dict[bytes, int] = {}
        kept = []
        copies = []
        bad = {one.number for one in self.bad}
        for number, digest in enumerate(self.digests):
            if number in bad:
                continue
            if digest in first:
                copies.append((number, first[digest]))
            else:
                first[digest] = number
                kept.append(number)
        return kept, copies


def scan(
    reader: SampleReader,
    lost: Mapping[int, str],
    bad: str = "refuse",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Read every sample once.

    Args:
        reader: The samples.
        lost: The samples without a value of a parameter, and the reason.
        bad: Whether to "refuse" bad samples or to "omit" them.
        force: Whether to keep samples with finite values that only look like missing ones.
        progress: Called with the samples done and the total after each block.

    Returns:
        The result of the pass.

    Raises:
        UserError: There are bad samples that may not be omitted, no other samples, or a channel with one value everywhere.
    """
    found = Scan({pick.slot: EdgeSums() for pick in reader.picks})
    for first in range(0, reader.count, reader.block):
        last = min(first + reader.block, reader.count)
        fields = reader.read(first, last)
        found.digests += [xxhash.xxh3_128_digest(one.data) for one in fields]
        wrong = find_bad_samples(reader, fields, first)
        found.suspect += [one for one in wrong if one.finite and force]
        omitted: dict[int, BadSample | LostSample] = {one.number: one for one in wrong if not (one.finite and force)}
        omitted |= {number: LostSample(number, lost[number]) for number in sorted(lost) if first <= number < last}
        found.bad += [omitted[number] for number in sorted(omitted)]
        _add(found, reader, np.delete(fields, [number - first for number in omitted], axis=0) if omitted else fields)
        if progress is not None:
            progress(last, reader.count)
    if found.bad and (bad == "refuse" or len(found.bad) == reader.count):
        raise UserError(refusal(reader, found.bad))
    for channel in np.flatnonzero(found.low == found.high):
        pick = reader.picks[channel % len(reader.picks)]
        raise UserError(
            f"{reader.source.path}: {pick.slot} (array '{pick.array.name}') is {found.low[channel]:g} everywhere"
            + f" in channel {channel}" * (len(found.low) > len(reader.picks))
            + "; nothing can be learned from it, check the file"
        )
    return found


def _add(found: Scan, reader: SampleReader, fields: np.ndarray) -> None:
    """Add samples that are not bad to the sums."""
    if not len(fields):
        return
    for i, pick in enumerate(reader.picks):
        part = fields[:, i :: len(reader.picks)]  # the species of one frame are neighbours
        found.edges[pick.slot].add(part.reshape(-1, *part.shape[-2:]).astype(np.float64))
    found.low = np.minimum(found.low, fields.min(axis=(0, 2, 3)))
    found.high = np.maximum(found.high, fields.max(axis=(0, 2, 3)))
    _collect_values(found, fields[:, 0])


def describe_bad(reader: SampleReader, bad: Sequence[BadSample | LostSample]) -> str:
    """Describe bad samples for a message.

    Args:
        reader: The samples.
        bad: The bad ones among them.

    Returns:
        How many there are, the first ones with place and value, and the numbers of the others.
    """
    described = ", ".join(one.describe(reader) for one in bad[:MAX_SHOWN])
    others = [one.number for one in bad[MAX_SHOWN:]]
    if reader.source.files:
        more = f"; and {len(others)} more" if others else ""
    else:
        more = f"; also samples {format_numbers(others, 20)}" if others else ""
    return f"{len(bad)} of {reader.count} samples have missing values or values beyond float32: {described}{more}"


def refusal(reader: SampleReader, bad: Sequence[BadSample | LostSample]) -> str:
    """Return the message that refuses bad samples, with its remedy."""
    remedy = "repair the file, or set bad=omit to omit them"
    if len(bad) == reader.count:
        remedy = "without them no sample is left; repair the file, or set scale if values are beyond float32"
    if all(one.finite for one in bad):
        remedy += ", or set force=true to keep the numbers unchanged"
    return f"{reader.source.path}: {describe_bad(reader, bad)}; {remedy}"


def _collect_values(found: Scan, values: np.ndarray) -> None:
    """Collect up to three distinct values: a third one shows that there are more than two phases."""
    while len(found.values) < 3:
        known = np.array(found.values).reshape(-1, 1, 1, 1)
        new = values[~(abs(values - known) <= _SAME_PHASE * abs(known)).any(axis=0)] if found.values else values
        if new.size == 0:
            return
        found.values.append(float(new.reshape(-1)[0]))
