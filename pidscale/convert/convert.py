"""Converts foreign files into a shard set like one made here.

A set is a function of the files' bytes and of the arguments: a killed run is continued to the same bytes, a finished set is
left unchanged, a folder with another request is refused. Files are read twice, a block of samples at a time. Must not know
models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pidscale.config import UserError, exact
from pidscale.convert import grid_checks
from pidscale.convert.join import join_readers
from pidscale.convert.layouts import open_source
from pidscale.convert.mapping import map_channels
from pidscale.convert.parameters import Parameters, build_equation, find_parameters, shortest_decimal
from pidscale.convert.recipe import SourceFiles, build_recipe, choose_splits, complete_recipe
from pidscale.convert.request import ConversionRequest
from pidscale.convert.sample_reader import SampleReader
from pidscale.convert.scan import Scan, describe_bad, scan
from pidscale.convert.times import add_times
from pidscale.convert.units import check_attributes, check_units
from pidscale.convert.write import write_set
from pidscale.dataset.hold import check_request
from pidscale.ops.grid import Grid
from pidscale.pde import build_pde
from pidscale.pde.base import Pde
from pidscale.records.manifest import Manifest

Progress = Callable[[str, int, int], None]  # the stage, the samples done, the total


@dataclass(frozen=True)
class ConvertedSet:
    """The result of a conversion.

    Attributes:
        manifest: The manifest of the set.
        pde: Its equation.
        grid: Its grid.
        reader: The samples of the files.
        notes: What was assumed, and what was omitted or not used.
        warnings: What contradicts the equation and was accepted.
        copies: The number of copies that were omitted.
        label: The text that names all files in messages.
    """

    manifest: Manifest
    pde: Pde
    grid: Grid
    reader: SampleReader
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    copies: int
    label: str


def convert(
    request: ConversionRequest, equation: str, given: Mapping[str, Any], progress: Progress | None = None
) -> ConvertedSet:
    """Convert files into a shard set, or finish a set that a killed run left.

    Args:
        request: The arguments of the conversion.
        equation: The name of the equation.
        given: The parameters that the settings give, by name.
        progress: Called with the stage, the samples done and the total.

    Returns:
        The set.

    Raises:
        UserError: Files or settings are wrong or contradict each other; one line says what to change.
    """
    root = Path(request.out).absolute()
    draft = build_pde(equation, dict(given))
    files = SourceFiles.find(request)
    inside = {one.resolve() for one in files.paths} & {root.resolve(), *root.resolve().parents}
    if inside or root.resolve() in {one.resolve().parent for one in files.paths}:
        raise UserError(f"out={request.out}: the folder of the files that are converted; name a separate folder")
    readers = [_open_reader(path, draft, request) for path in files.paths]
    reader = join_readers(readers, files.label)
    path = reader.source.path
    parameters = find_parameters(draft, given, reader.source, reader.count, request)
    add_times(draft, reader.source, reader.times, given, parameters.fixed)
    pde, default_notes = build_equation(draft, parameters, given, reader.source)
    grid = grid_checks.build_grid(pde, reader.shape, request.grid, str(path))
    findings = _grid_findings(grid, reader)
    unit_findings, unit_notes = check_units(pde, reader)
    findings += unit_findings + _attribute_findings(readers, parameters)
    _refuse_unless_forced(path, findings, request.force)
    recipe = build_recipe(request, files, pde, grid, reader, parameters)
    check_request(root, {key: recipe[key] for key in recipe if key != "params"}, "out")  # before hours of reading
    if "low" in pde.params_dict():
        reader = replace(reader, phases=(pde.params_dict()["low"], pde.params_dict()["high"]))
    reading = None if progress is None else lambda done, total: progress("reading", done, total)
    found = scan(reader, parameters.lost, request.bad, request.force, reading)
    pde = _with_phases(pde, parameters, given, reader, found)
    errors, warnings = _edge_findings(grid, pde, found)
    _refuse_unless_forced(path, errors, request.force)
    test_samples = files.test_samples([one.count for one in readers])
    numbers, copies = choose_splits(reader.source, request, found, test_samples)
    recipe = complete_recipe(recipe, pde, numbers, found)
    manifest = write_set(root, recipe, pde, grid, reader, parameters, numbers, progress)
    warnings += findings + errors if request.force else []
    warnings += [f"kept unchanged: {describe_bad(reader, found.suspect)}"] if found.suspect else []
    notes = (*reader.source.notes, *default_notes, *unit_notes, *_omission_notes(reader, parameters, found))
    return ConvertedSet(manifest, pde, grid, reader, notes, tuple(warnings), len(copies), files.label)


def _open_reader(path: Path, pde: Pde, request: ConversionRequest) -> SampleReader:
    """Open one file and find the channels in it."""
    return _drop_repeated_ends(map_channels(pde, open_source(path, request.layout), request), pde, request)


def _drop_repeated_ends(reader: SampleReader, pde: Pde, request: ConversionRequest) -> SampleReader:
    """Drop the end points of periodic axes if drop_end=true. Raises UserError unless they repeat the first points."""
    if not request.drop_end:
        return reader
    kind = pde.grid(8).kind
    if pde.grid(8).boundary != "periodic":
        raise UserError(
            f"drop_end=true: {pde.name} is defined on {kind} points, which have no repeated end; omit drop_end"
        )
    some = reader.read(0, min(reader.count, reader.block))
    tolerance = 1e-4 * float(abs(some).max())
    axes = (-1,) if kind == "strip" else (-2, -1)
    for axis in axes:
        if not np.allclose(some.take(0, axis=axis), some.take(-1, axis=axis), rtol=0, atol=tolerance):
            name = "x" if axis == -1 else "y"
            raise UserError(
                f"drop_end=true: {reader.source.path} does not repeat its first point at the end of {name}; omit drop_end"
            )
    return replace(reader, dropped_ends=(int(-2 in axes), 1))


def _grid_findings(grid: Grid, reader: SampleReader) -> list[str]:
    """Compare coordinates and stated boundary conditions of the files with the grid."""
    dropped = {"y": reader.dropped_ends[0], "x": reader.dropped_ends[1]}
    findings = grid_checks.check_coordinates(grid, reader.source.coordinates, dropped)
    return findings + grid_checks.check_stated_boundary(grid, reader.source.boundary)


def _attribute_findings(readers: Sequence[SampleReader], parameters: Parameters) -> list[str]:
    """Return what attributes forbid, with the name of the file where there are several."""
    return [
        line if len(readers) == 1 else f"{one.source.path}: {line}"
        for one in readers
        for line in check_attributes(one, list(parameters.used.values()))
    ]


def _refuse_unless_forced(path: Path, findings: Sequence[str], force: bool) -> None:
    """Raise UserError for the first finding unless force=true."""
    if findings and not force:
        raise UserError(f"{path}: {findings[0]}, or set force=true to accept the file unchanged")


def _with_phases(pde: Pde, parameters: Parameters, given: Mapping[str, Any], reader: SampleReader, found: Scan) -> Pde:
    """Return the equation with the phases of a two-phase coefficient. Raises UserError if the fields have no such phases."""
    own = pde.params_dict()
    if "variant" not in own:
        return pde
    where = f"{reader.source.path}: {reader.picks[0].slot} (array '{reader.picks[0].array.name}')"
    if found.low[0] <= 0:
        raise UserError(
            f"{where} has values down to {found.low[0]:g}, expected values above 0; write phases 0 and 1 as booleans"
        )
    if own["variant"] != "two_phase":
        return pde
    if len(found.values) > 2:
        raise UserError(f"{where} has more than two values; set pde=darcy_lognormal for a coefficient without phases")
    low = shortest_decimal(np.float32(min(found.values)))
    high = shortest_decimal(np.float32(max(found.values)))
    for name, value in (("low", low), ("high", high)):
        if name in given and not np.isclose(given[name], value, rtol=1e-4):
            raise UserError(
                f"{where} has phases {exact(low)} and {exact(high)}, pde.params.{name}={given[name]}; "
                f"set pde.params.{name}={exact(value)}"
            )
        parameters.fixed[name] = given.get(name, value)
    return build_pde(pde.name, parameters.fixed)


def _edge_findings(grid: Grid, pde: Pde, found: Scan) -> tuple[list[str], list[str]]:
    """Return errors and warnings about the edges of the fields."""
    errors: list[str] = []
    warnings: list[str] = []
    roles = {channel.name: channel.role for channel in pde.channels}
    for slot, edges in found.edges.items():
        if grid.kind == "node" and roles.get(slot) == "solution":
            wrong, doubtful = grid_checks.check_zero_edge(slot, edges, grid)
            errors += wrong
            warnings += doubtful
        if grid.boundary == "periodic":
            errors += grid_checks.check_periodic(slot, edges, "x" if grid.kind == "strip" else "yx")
    return errors, warnings


def _omission_notes(reader: SampleReader, parameters: Parameters, found: Scan) -> list[str]:
    """Return notes about bad samples that were omitted and arrays that were not used."""
    notes = []
    if found.bad:
        notes.append(f"omitted, as request.json lists under left_out: {describe_bad(reader, found.bad)}")
    used = {pick.array.name for pick in reader.picks} | {word.partition(":")[0] for word in parameters.used.values()}
    unused = [name for name in reader.source.arrays if name not in used]
    if unused:
        notes.append(f"not used: {', '.join(unused)}; set channels.NAME=ARRAY to use another array")
    return notes
