"""Several files that agree, read as one: samples in the order of the files; a sample number gives file and place in it.

Must not know equations or shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pidscale.config import UserError, distinct
from pidscale.convert.layouts.source import Array, Slices, Source, same_coordinates
from pidscale.convert.sample_reader import Pick, SampleReader


def join_readers(readers: Sequence[SampleReader], label: str) -> SampleReader:
    """Read several files as one. Raises UserError if a file differs from the first; the message names it and what differs.

    Args:
        readers: The reader of each file; a single one is returned unchanged.
        label: The text that names all files together in messages.

    Returns:
        The reader of all samples.
    """
    if len(readers) == 1:
        return readers[0]
    first = readers[0]
    for other in readers[1:]:
        if first.source.layout != other.source.layout:
            _refuse(first.source, other.source, "its layout is", first.source.layout, other.source.layout)
        _check_picks(first, other)
        _check_sources(first.source, other.source)
    counts = [reader.count for reader in readers]
    picks = tuple(_join_picks([reader.picks[i] for reader in readers], readers) for i in range(len(first.picks)))
    sources = [reader.source for reader in readers]
    source = replace(
        first.source,
        path=Path(label),
        arrays={**_join_tables(sources, counts), **{pick.array.name: pick.array for pick in picks}},
        scalars={name: _join_scalars(sources, name, counts) for name in first.source.scalars},
        notes=tuple(dict.fromkeys(note for one in sources for note in one.notes)),
        files=tuple((one.path, count) for one, count in zip(sources, counts, strict=True)),
    )
    return replace(first, source=source, picks=picks, count=sum(counts))


def _refuse(first: Source, other: Source, what: str, expected: Any, found: Any) -> NoReturn:
    """Raise UserError for a file that differs from the first in something that a set has only one of."""
    raise UserError(
        f"{other.path}: {what} {found}, {first.path} has {expected}; files of one set must agree, so convert this file into "
        "another set"
    )


def _check_picks(first: SampleReader, other: SampleReader) -> None:
    """Raise UserError if a slot of two files has another array, shape, type or unit."""
    a = first.source
    b = other.source
    for one, two in zip(first.picks, other.picks, strict=True):
        expected, found = ((p.array.name, p.component, p.axes) for p in (one, two))
        if expected != found:
            what = f"{two.slot} is array '{found[0]}' [{', '.join(found[2])}],"
            _refuse(a, b, what, f"'{expected[0]}' [{', '.join(expected[2])}]", "")
        shapes = [[p.length(axis) for axis in p.axes if axis != "N"] for p in (one, two)]
        if shapes[0] != shapes[1]:
            _refuse(a, b, f"{two.slot} has [{', '.join(two.axes.replace('N', ''))}] of", shapes[0], shapes[1])
        if (one.array.dtype.kind == "b") != (two.array.dtype.kind == "b"):
            _refuse(a, b, f"{two.slot} is of type", one.array.dtype, two.array.dtype)
        units = [p.array.attributes.unit for p in (one, two)]
        if units[0] != units[1]:
            _refuse(a, b, f"the unit of {two.slot} is", repr(units[0]), repr(units[1]))


def _check_sources(a: Source, b: Source) -> None:
    """Raise UserError if two files differ in times, coordinates, units, boundary or the names of their scalars."""
    coordinates = {f"{k} coordinate": (a.coordinates.get(k), b.coordinates.get(k)) for k in ("x", "y")}
    for name, (expected, found) in {"times": (a.times, b.times), **coordinates}.items():
        if not same_coordinates(expected, found):
            _refuse(a, b, f"its {name} are", *_differing_lines(expected, found))
    for name in sorted(a.attributes.keys() & b.attributes.keys()):
        units = [one.attributes[name].unit for one in (a, b)]
        if units[0] != units[1]:
            _refuse(a, b, f"the unit of '{name}' is", repr(units[0]), repr(units[1]))
    if a.boundary != b.boundary:
        _refuse(a, b, "its boundary is", dict(a.boundary), dict(b.boundary))
    if a.scalars.keys() != b.scalars.keys():
        only = sorted(a.scalars.keys() ^ b.scalars.keys())[0]
        counts = ["one" if only in one.scalars else "none" for one in (a, b)]
        _refuse(a, b, f"of the number '{only}' it has", counts[0], counts[1])


def _differing_lines(expected: np.ndarray | None, found: np.ndarray | None) -> tuple[str, str]:
    """Describe two coordinates by number and ends, or by the values that differ most where these are the same."""
    texts = [
        "none" if line is None else f"{len(line)} from {line[0]:.6g} to {line[-1]:.6g}" for line in (expected, found)
    ]
    if expected is None or found is None or texts[0] != texts[1]:
        return texts[0], texts[1]
    at = int(np.argmax(abs(expected.astype(np.float64) - found)))
    values = distinct(expected[at], found[at], digits=6)
    return f"{texts[0]}, number {at} is {values[0]}", f"{texts[1]}, number {at} is {values[1]}"


def _join_picks(picks: Sequence[Pick], readers: Sequence[SampleReader]) -> Pick:
    """Return one slot with the arrays of all files joined along the samples."""
    sources = [reader.source for reader in readers]
    return replace(picks[0], array=_join_arrays(picks, sources, [reader.count for reader in readers]))


def _join_arrays(picks: Sequence[Pick], sources: Sequence[Source], counts: Sequence[int]) -> Array:
    """Return the arrays of all files as one that reads each part from its file."""
    arrays = [pick.array for pick in picks]
    at = picks[0].axes.index("N")

    def parts(index: Slices) -> list[tuple[int, Slices]]:
        """Split an index by file: the number of each file, and the index in it."""
        start, stop, _ = index[at].indices(sum(counts))
        found = []
        base = 0
        for i, count in enumerate(counts):
            low = max(start - base, 0)
            high = min(stop - base, count)
            if low < high:
                found.append((i, (*index[:at], slice(low, high), *index[at + 1 :])))
            base += count
        return found

    def read(index: Slices) -> np.ndarray:
        return np.concatenate([sources[i].read(arrays[i], own) for i, own in parts(index)], axis=at)

    def missing_reason(index: Slices) -> str:
        i, own = parts(index)[0]
        return arrays[i].missing_reason(own)

    shape = tuple(sum(counts) if dim == at else length for dim, length in enumerate(arrays[0].shape))
    return replace(arrays[0], shape=shape, read=read, missing_reason=missing_reason)


def _join_tables(sources: Sequence[Source], counts: Sequence[int]) -> dict[str, Array]:
    """Return the arrays that are not fields: tables [N, P] joined over all files, others from the first file."""
    tables = {}
    for name, array in sources[0].arrays.items():
        every = [source.arrays.get(name) for source in sources]
        shapes = [one.shape if one is not None else () for one in every]
        is_table = all(len(s) == 2 and s[0] == n and s[1] == shapes[0][1] for s, n in zip(shapes, counts, strict=True))
        tables[name] = _join_table([one for one in every if one is not None], sources, counts) if is_table else array
    return tables


def _join_table(arrays: Sequence[Array], sources: Sequence[Source], counts: Sequence[int]) -> Array:
    return _join_arrays([Pick("", array, "NP", None, 1.0) for array in arrays], sources, counts)


def _join_scalars(sources: Sequence[Source], name: str, counts: Sequence[int]) -> np.ndarray:
    """Return a number of all files: one [] if all agree, otherwise one for each sample [N]."""
    every = [source.scalars[name] for source in sources]
    if all(one.shape == () for one in every) and all(one == every[0] for one in every):
        return every[0]
    for source, one, count in zip(sources, every, counts, strict=True):
        if one.shape not in ((), (count,)):
            raise UserError(
                f"{source.path}: '{name}' has {one.size} values for {count} samples; each of several files must have one "
                "value, or one for each sample"
            )
    return np.concatenate([np.broadcast_to(one, (count,)) for one, count in zip(every, counts, strict=True)])
