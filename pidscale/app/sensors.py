"""Reads tables of sensors from csv files, with one sensor per line.

The columns are channel,y,x,value with row and column counted from 0, or channel,y_coord,x_coord,value with coordinates from 0
to the extent of the grid. Columns are separated by commas, by tabs, or by semicolons; with the last, numbers may have
a decimal comma, if all of them have it. A # starts a comment. A UserError names file and line. Must not know networks.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pidscale.config import UserError, exact
from pidscale.generator.tasks.readings import check_channel

if TYPE_CHECKING:
    from pidscale.generator.generator import Generator

_BY_POINT = ("channel", "y", "x", "value")
_BY_PLACE = ("channel", "y_coord", "x_coord", "value")
_SAME = 1e-6  # relative difference up to which two readings at one point are equal


@dataclass(frozen=True)
class Sensors:
    """A table of sensors in physical units.

    Attributes:
        fields: Values [Y, X] at grid points by channel name; NaN where there is none.
        places: Coordinates (y, x) and value of each sensor by channel name, where the table has coordinates.
    """

    fields: dict[str, np.ndarray]
    places: dict[str, list[tuple[float, float, float]]]


@dataclass(frozen=True)
class _Reading:
    line: int
    value: float


def read_sensors(generator: Generator, path: Path) -> Sensors:
    """Read a table of sensors.

    Args:
        generator: Generator with the channels and the grid of the table.
        path: Path of the csv file.

    Returns:
        The sensors: all at grid points, or all at coordinates.

    Raises:
        UserError: When the file is not such a table, or has no sensors or contradictory ones.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not text in UTF-8; save the table as plain text") from None
    found: dict[tuple[str, float, float], _Reading] = {}
    for line, channel, y, x, value in _rows(generator, path, text):
        first = found.setdefault((channel, y, x), _Reading(line, value))
        if not math.isclose(first.value, value, rel_tol=_SAME):
            raise UserError(
                f"{path}: lines {first.line} and {line} are {channel} at the same point y={exact(y)}, x={exact(x)}, of "
                f"{exact(first.value)} and {exact(value)}; keep one, or their mean"
            )
    if not found:
        raise UserError(f"{path}: no sensor in it; expected lines of {','.join(_BY_POINT)} below those names")
    sensors = Sensors({}, {})
    for (channel, y, x), reading in found.items():
        if isinstance(y, int) and isinstance(x, int):
            empty = np.full(generator.grid.shape, np.nan)
            sensors.fields.setdefault(channel, empty)[y, x] = reading.value
        else:
            sensors.places.setdefault(channel, []).append((y, x, reading.value))
    return sensors


def _rows(generator: Generator, path: Path, text: str) -> Iterator[tuple[int, str, float, float, float]]:
    """Yield line number, channel, place and value of each sensor; a place is row and column (int) or coordinates (float)."""
    names: list[str] = []
    marks: dict[str, int] = {}
    for line, separator, cells in _lines(path, text):
        where = f"{path}: line {line}"
        if not names:
            names = [cell.lower() for cell in cells]
            if sorted(names) not in (sorted(_BY_POINT), sorted(_BY_PLACE)):
                wanted = f"{','.join(_BY_POINT)} or {','.join(_BY_PLACE)}"
                raise UserError(f"{where}: columns {','.join(cells)[:80]!r}; expected {wanted}")
            continue
        if len(cells) != len(names):
            raise UserError(f"{where}: {len(cells)} values, expected {len(names)}: {','.join(names)}")
        row = dict(zip(names, cells, strict=True))
        if separator == ";":
            row = {
                name: cell if name == "channel" else _pointed(where, line, cell, marks) for name, cell in row.items()
            }
        yield line, *_sensor(generator, where, row)


def _pointed(where: str, line: int, cell: str, marks: dict[str, int]) -> str:
    """Return a number with a decimal point; `marks` has the first line of each of both marks, and gets that of this one."""
    for mark in (mark for mark in ",." if mark in cell):
        marks.setdefault(mark, line)
    if len(marks) > 1:
        raise UserError(
            f"{where}: a decimal comma (line {marks[',']}) and a point (line {marks['.']}) in one table; write all numbers "
            "alike, without marks of thousands"
        )
    return cell.replace(",", ".") if cell.count(",") == 1 else cell


def _lines(path: Path, text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield number, separator and cells of each line that is neither empty nor a comment. No cell spans several lines."""
    separator = ""
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        words = line.partition("#")[0]
        if not separator and words.strip():  # the line of names
            separator = next((one for one in (";", "\t") if one in words), ",")
        try:
            rows = csv.reader([words], skipinitialspace=True, delimiter=separator or ",")
            cells = [cell.strip() for row in rows for cell in row]
        except csv.Error as error:
            raise UserError(f"{path}: line {number}: {error}; save the table as plain text") from None
        if any(cells):
            yield number, separator, cells


def _sensor(generator: Generator, where: str, cells: Mapping[str, str]) -> tuple[str, float, float, float]:
    """Return channel, place and value of one line."""
    check_channel(generator, cells["channel"], where)
    value = _number(where, "value", cells["value"])
    places: list[float] = []
    for dim, axis in enumerate(("y", "x")):
        if axis in cells:
            points = generator.grid.shape[dim]
            if not re.fullmatch(r"[0-9]{1,9}", cells[axis]) or int(cells[axis]) >= points:
                advice = f"; coordinates stand in columns called {','.join(_BY_PLACE)}" if "." in cells[axis] else ""
                raise UserError(
                    f"{where}: {axis}={cells[axis][:80]!r}: expected a whole number from 0 to {points - 1}, inside the "
                    f"grid{advice}"
                )
            places.append(int(cells[axis]))
        else:
            places.append(_coordinate(generator, where, dim, _number(where, f"{axis}_coord", cells[f"{axis}_coord"])))
    return cells["channel"], places[0], places[1], value


def _number(where: str, name: str, text: str) -> float:
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        advice = "; with decimal commas, separate the columns by semicolons" if text.count(",") == 1 else ""
        raise UserError(f"{where}: {name}={text[:80]!r}: expected a finite number{advice}")
    return number


def _coordinate(generator: Generator, where: str, dim: int, place: float) -> float:
    """Return a coordinate that lies within the grid."""
    extent = generator.grid.extent[dim]
    if not 0 <= place <= extent:
        raise UserError(
            f"{where}: {'yx'[dim]}_coord={exact(place)}: outside the grid, which goes from 0 to {exact(extent)}"
        )
    return place
