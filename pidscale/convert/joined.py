"""Several files that agree, read as one: samples in the order of the files, whose numbers tell file and place in it.

Must not know equations or shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.source import Array, Slices, Source, same_line
from pidscale.convert.reading import Pick, Reading


def joined(readings: Sequence[Reading], word: str) -> Reading:
    """One reading of all; a single one as it is. word: how messages call all files together.

    UserError names the file that differs from the first, and in what.
    """
    if len(readings) == 1:
        return readings[0]
    first = readings[0]
    for other in readings[1:]:
        _check_alike(first, other)
    counts = [reading.count for reading in readings]
    picks = tuple(_pick(readings, i, counts) for i in range(len(first.picks)))
    sources = [reading.source for reading in readings]
    source = replace(
        first.source,
        path=Path(word),
        arrays={**_tables(sources, counts), **{pick.array.name: pick.array for pick in picks}},
        scalars={name: _scalar(sources, name, counts) for name in first.source.scalars},
        notes=tuple(dict.fromkeys(note for one in sources for note in one.notes)),
        files=tuple((one.path, count) for one, count in zip(sources, counts, strict=True)),
    )
    return replace(first, source=source, picks=picks, count=sum(counts))


def _check_alike(first: Reading, other: Reading) -> None:
    """UserError for what a set has only one of and the two files have two."""
    a, b = first.source, other.source

    def differ(what: str, had: Any, has: Any) -> UserError:
        return UserError(
            f"{b.path}: {what} {has}, {a.path} has {had}; files of one set must agree, so convert it into a set of its own"
        )

    if a.layout != b.layout:
        raise differ("its layout is", a.layout, b.layout)
    for one, two in zip(first.picks, other.picks, strict=True):
        had, has = ((p.array.name, p.component, p.axes) for p in (one, two))
        if had != has:
            raise differ(
                f"{two.slot} is array '{has[0]}' [{', '.join(has[2])}],", f"'{had[0]}' [{', '.join(had[2])}]", ""
            )
        shapes = [[p.length(axis) for axis in p.axes if axis != "N"] for p in (one, two)]
        if shapes[0] != shapes[1]:
            raise differ(f"{two.slot} has [{', '.join(two.axes.replace('N', ''))}] of", shapes[0], shapes[1])
        if (one.array.dtype.kind == "b") != (two.array.dtype.kind == "b"):
            raise differ(f"{two.slot} is of type", one.array.dtype, two.array.dtype)
        if one.array.said.unit != two.array.said.unit:
            raise differ(f"the unit of {two.slot} is", repr(one.array.said.unit), repr(two.array.said.unit))
    lines = {"times": (a.times, b.times), **{f"{k} coordinate": (a.places.get(k), b.places.get(k)) for k in ("x", "y")}}
    for name, (had_line, has_line) in lines.items():
        if not same_line(had_line, has_line):
            raise differ(f"its {name} are", _ends(had_line), _ends(has_line))
    for name in a.said.keys() & b.said.keys():
        if a.said[name].unit != b.said[name].unit:
            raise differ(f"the unit of '{name}' is", repr(a.said[name].unit), repr(b.said[name].unit))
    if a.boundary != b.boundary:
        raise differ("its boundary is", dict(a.boundary), dict(b.boundary))
    if a.scalars.keys() != b.scalars.keys():
        only = sorted(a.scalars.keys() ^ b.scalars.keys())[0]
        raise differ(f"of the number '{only}' it has", *("one" if only in s.scalars else "none" for s in (a, b)))


def _ends(line: np.ndarray | None) -> str:
    return "none" if line is None else f"{len(line)} from {line[0]:.6g} to {line[-1]:.6g}"


def _pick(readings: Sequence[Reading], i: int, counts: Sequence[int]) -> Pick:
    """The i-th slot, of the arrays of all files."""
    picks = [reading.picks[i] for reading in readings]
    return replace(picks[0], array=_array(picks, [reading.source for reading in readings], counts))


def _array(picks: Sequence[Pick], sources: Sequence[Source], counts: Sequence[int]) -> Array:
    arrays, at = [pick.array for pick in picks], picks[0].axes.index("N")

    def parts(index: Slices) -> list[tuple[int, Slices]]:
        start, stop, _ = index[at].indices(sum(counts))
        found, base = [], 0
        for i, count in enumerate(counts):
            low, high = max(start - base, 0), min(stop - base, count)
            if low < high:
                found.append((i, (*index[:at], slice(low, high), *index[at + 1 :])))
            base += count
        return found

    def read(index: Slices) -> np.ndarray:
        return np.concatenate([sources[i].read(arrays[i], own) for i, own in parts(index)], axis=at)

    def why(index: Slices) -> str:
        i, own = parts(index)[0]
        return arrays[i].why(own)

    shape = tuple(sum(counts) if d == at else n for d, n in enumerate(arrays[0].shape))
    return replace(arrays[0], shape=shape, read=read, why=why)


def _tables(sources: Sequence[Source], counts: Sequence[int]) -> dict[str, Array]:
    """Arrays that are not fields: tables [N, P] of all files, others as the first file has them."""
    tables = {}
    for name, array in sources[0].arrays.items():
        every = [source.arrays.get(name) for source in sources]
        shapes = [one.shape if one is not None else () for one in every]
        table = all(len(s) == 2 and s[0] == n and s[1] == shapes[0][1] for s, n in zip(shapes, counts, strict=True))
        tables[name] = _table([one for one in every if one is not None], sources, counts) if table else array
    return tables


def _table(arrays: Sequence[Array], sources: Sequence[Source], counts: Sequence[int]) -> Array:
    return _array([Pick("", array, "NP", None, 1.0) for array in arrays], sources, counts)


def _scalar(sources: Sequence[Source], name: str, counts: Sequence[int]) -> np.ndarray:
    """A number of all files: one where all have the same, else one for each sample."""
    every = [source.scalars[name] for source in sources]
    if all(one.shape == () for one in every) and all(one == every[0] for one in every):
        return every[0]
    for source, one, count in zip(sources, every, counts, strict=True):
        if one.shape not in ((), (count,)):
            raise UserError(
                f"{source.path}: '{name}' has {one.size} values for {count} samples; of several files each must have one for "
                "each sample"
            )
    return np.concatenate([np.broadcast_to(one, (count,)) for one, count in zip(every, counts, strict=True)])
