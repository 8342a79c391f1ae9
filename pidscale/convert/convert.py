"""Turn files of somebody else's data into a shard set, as if it had been made here.

A set is a function of the files' bytes and of what was asked: a killed run is continued to the same bytes, a finished one is
left alone, a folder with another request is refused. Files are read twice, a block of samples at a time. Must not know
models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError
from pidscale.convert import grid_checks
from pidscale.convert.joined import joined
from pidscale.convert.layouts import open_source
from pidscale.convert.mapping import map_channels
from pidscale.convert.parameters import Parameters, find_parameters, finished_equation, plain, with_times
from pidscale.convert.reading import Reading
from pidscale.convert.recipe import Files, asked_for, settled, splits
from pidscale.convert.request import Asked
from pidscale.convert.scan import Scan, described, scan
from pidscale.convert.units import check_said, check_units
from pidscale.dataset.claim import check_request, hold_set
from pidscale.dataset.publish import FIRST_COUNTER, FinishedShard, make_or_take, manifest_of
from pidscale.ops.grid import Grid
from pidscale.pde import build_pde
from pidscale.pde.base import Pde
from pidscale.pde.residuals import truth_residuals
from pidscale.records.check import check_set, check_wanted, load_manifest
from pidscale.records.format import sample_key
from pidscale.records.manifest import Manifest
from pidscale.records.write import Sample, publish_manifest

Progress = Callable[[str, int, int], None]  # what is done, how many samples of it, of how many


@dataclass(frozen=True)
class Converted:
    """What became of files. notes: what was taken for granted. warnings: what contradicts the equation. dropped: copies.

    word: how messages call the files.
    """

    manifest: Manifest
    pde: Pde
    grid: Grid
    reading: Reading
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    dropped: int
    word: str


def convert(asked: Asked, equation: str, given: Mapping[str, Any], progress: Progress | None = None) -> Converted:
    """Write the set of a file, or what is missing of it.

    equation, given: name and parameters of the settings. UserError in one line for whatever is wrong with file or settings.
    """
    root, draft, files = Path(asked.out).absolute(), build_pde(equation, dict(given)), Files.of(asked)
    if root.resolve() in {one.resolve().parent for one in files.paths}:
        raise UserError(
            f"out={asked.out}: the folder of the files that are converted; a set lies in a folder of its own"
        )
    opened = [
        _trimmed(map_channels(draft, open_source(path, asked.layout), asked), draft, asked) for path in files.paths
    ]
    reading = joined(opened, files.word)
    source, path = reading.source, reading.source.path
    found = find_parameters(draft, given, source, reading.count, asked)
    with_times(draft, source, reading.times, given, found.fixed)
    pde, notes = finished_equation(draft, found, given, source)
    grid = grid_checks.grid_of(pde, reading.shape, asked.grid, str(path))
    ends = {"y": reading.ends[0], "x": reading.ends[1]}
    findings = grid_checks.check_places(grid, source.places, ends) + grid_checks.check_stated(grid, source.boundary)
    units, kept = check_units(pde, reading)
    findings += units + [
        said if len(opened) == 1 else f"{one.source.path}: {said}"
        for one in opened
        for said in check_said(one, list(found.used.values()))
    ]
    _settle(path, findings, asked.force)
    request = asked_for(asked, files, pde, grid, reading, found)
    check_request(root, {key: request[key] for key in request if key != "params"}, "out")  # before hours of reading
    if "low" in pde.params_dict():
        reading = replace(reading, phases=(pde.params_dict()["low"], pde.params_dict()["high"]))
    told = None if progress is None else lambda done, total: progress("reading", done, total)
    seen = scan(reading, found.lost, asked.bad, asked.force, told)
    pde = _with_phases(pde, found, given, reading, seen)
    errors, warnings = _bounded(grid, pde, seen)
    _settle(path, errors, asked.force)
    numbers, copies = splits(source, asked, seen, files.held_out([one.count for one in opened]))
    request = settled(request, pde, numbers, seen)
    manifest = _written(root, request, pde, grid, reading, found, numbers, progress)
    warnings += findings + errors if asked.force else []
    warnings += [f"taken as they stand: {described(reading, seen.doubtful)}"] if seen.doubtful else []
    notes = (*source.notes, *notes, *kept, *_left_out(reading, found, seen))
    return Converted(manifest, pde, grid, reading, notes, tuple(warnings), len(copies), files.word)


def _left_out(reading: Reading, found: Parameters, seen: Scan) -> list[str]:
    """Notes of the samples that were left out, and of the arrays that nothing was taken from."""
    taken = {pick.array.name for pick in reading.picks} | {word.partition(":")[0] for word in found.used.values()}
    names = [name for name in reading.source.arrays if name not in taken]
    notes = [f"not taken: {', '.join(names)}; channels.NAME=ARRAY takes another array"] if names else []
    return [f"left out, as request.json lists them: {described(reading, seen.bad)}", *notes] if seen.bad else notes


def _settle(path: Path, findings: Sequence[str], force: bool) -> None:
    """The first finding is an error, unless all are to be taken as they stand."""
    if findings and not force:
        raise UserError(f"{path}: {findings[0]}, or set force=true to take the file as it stands")


def _trimmed(reading: Reading, pde: Pde, asked: Asked) -> Reading:
    """Without the repeated end points that were asked to be left away, once they are seen to be repeated."""
    if not asked.drop_end:
        return reading
    kind = pde.grid(8).kind
    if pde.grid(8).boundary != "periodic":
        raise UserError(f"drop_end=true: {pde.name} lives on {kind} points, which have no repeated end; leave it away")
    some = reading.read(0, min(reading.count, reading.block))
    axes = (-1,) if kind == "strip" else (-2, -1)
    for axis in axes:
        if not np.allclose(
            some.take(0, axis=axis), some.take(-1, axis=axis), rtol=0, atol=1e-4 * float(abs(some).max())
        ):
            name = "x" if axis == -1 else "y"
            raise UserError(
                f"drop_end=true: {reading.source.path} does not repeat its first point at the end of {name}; leave it away"
            )
    return replace(reading, ends=(int(-2 in axes), 1))


def _with_phases(pde: Pde, found: Parameters, given: Mapping[str, Any], reading: Reading, seen: Scan) -> Pde:
    """Take the phases of a two-phase coefficient from the file. UserError where the settings have others, or it has none."""
    own = pde.params_dict()
    if "variant" not in own:
        return pde
    where = f"{reading.source.path}: {reading.picks[0].slot} (array '{reading.picks[0].array.name}')"
    if seen.low[0] <= 0:
        raise UserError(f"{where} goes down to {seen.low[0]:g}, it must be above 0; phases 0 and 1 are written as bool")
    if own["variant"] != "two_phase":
        return pde
    if len(seen.values) > 2:
        raise UserError(f"{where} has more than two values; set pde=darcy_lognormal for a coefficient without phases")
    low, high = plain(np.float32(min(seen.values))), plain(np.float32(max(seen.values)))
    for name, value in (("low", low), ("high", high)):
        if name in given and not np.isclose(given[name], value, rtol=1e-4):
            raise UserError(
                f"{where} has phases {low:g} and {high:g}, pde.params.{name}={given[name]}; set pde.params.{name}={value:g}"
            )
        found.fixed[name] = given.get(name, value)
    return build_pde(pde.name, found.fixed)


def _bounded(grid: Grid, pde: Pde, seen: Scan) -> tuple[list[str], list[str]]:
    """Errors and warnings of what the edges of the fields show."""
    errors: list[str] = []
    warnings: list[str] = []
    roles = {channel.name: channel.role for channel in pde.channels}
    for slot, edges in seen.edges.items():
        if grid.kind == "node" and roles.get(slot) == "solution":
            wrong, doubtful = grid_checks.check_zero_edge(slot, edges, grid)
            errors, warnings = errors + wrong, warnings + doubtful
        if grid.boundary == "periodic":
            errors += grid_checks.check_periodic(slot, edges, "x" if grid.kind == "strip" else "yx")
    return errors, warnings


def _written(
    root: Path,
    request: dict[str, Any],
    pde: Pde,
    grid: Grid,
    reading: Reading,
    found: Parameters,
    numbers: Mapping[str, list[int]],
    progress: Progress | None,
) -> Manifest:
    """The set of these samples, or what is missing of it; a finished one as it stands."""
    check_request(root, request, "out")
    if (root / "manifest.json").exists():
        manifest = load_manifest(root)
        check_wanted(manifest, root, pde.name, grid.describe())
        check_set(manifest, root)
        return manifest
    made: list[FinishedShard] = []
    done, total, size = 0, sum(map(len, numbers.values())), request["samples_per_shard"]
    with hold_set(root, request, "out"):
        for split, some in numbers.items():
            for shard, first in enumerate(range(0, len(some), size)):
                part = some[first : first + size]
                samples = _samples(pde, grid, reading, found, part, FIRST_COUNTER[split], first)
                made.append(make_or_take(root, split, shard, len(part), samples))
                done += len(part)
                if progress is not None:
                    progress("writing", done, total)
        manifest = manifest_of(pde, grid, request, made, f"check that array of {reading.source.path}")
        publish_manifest(root, manifest)
    return manifest


def _samples(
    pde: Pde, grid: Grid, reading: Reading, found: Parameters, numbers: Sequence[int], base: int, first: int
) -> Iterator[Sample]:
    """Samples of one shard with the residual of what is stored.

    `source` is the number of a sample in its file; of several files, `file` is the number of that in the request.
    """
    at, many = first, {path: i for i, (path, _) in enumerate(reading.source.files)}
    for some, fields in reading.blocks(numbers):
        varying = np.array([[found.of(number)[name] for name in pde.varying] for number in some])
        norms = truth_residuals(pde, grid, fields, varying)
        for i, number in enumerate(some):
            residual = {name: float(f"{values[i]:.6g}") for name, values in norms.items()}
            if not np.isfinite(list(residual.values())).all():
                low, high = float(fields[i].min()), float(fields[i].max())
                raise UserError(
                    f"{reading.source.sample(number)} has a residual beyond float32, its values go from {low:.4g} to "
                    f"{high:.4g}; check scale and pde.params"
                )
            path, own = reading.source.place(number)
            meta = {"seed": base + at, "source": own, "params": found.of(number), "residual": residual}
            meta |= {"file": many[path]} if many else {}
            yield sample_key(at), fields[i], meta
            at += 1
