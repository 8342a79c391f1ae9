"""Files of what is known, read: npy, npz and tables of sensors; and files of answers, npz, written. Knows no networks.

- npy: an array as `observe` takes one, all channels of the task
- npz: arrays by channel name, in which NaN is unknown, NAME_mask beside them where there is a mask, numbers by the name of a
  parameter, and `equation`, if it is there, the name of the equation that the file is of; an answer's own file is read
- csv: one line for each sensor: channel,y,x,value with row and column from 0, or channel,y_coord,x_coord,value with
  coordinates from 0 to the grid's extent, of which the nearest point is taken; # begins a comment

No pickle is read. Every mistake is one line that names the file, and the line of a table. Shapes: as in observations.py.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pidscale.config import UserError, exact
from pidscale.generator import artifact
from pidscale.generator.tasks.observations import check_channel

if TYPE_CHECKING:
    from pidscale.generator.generator import Generator
    from pidscale.generator.tasks.likeliest import Answer
    from pidscale.generator.tasks.posterior import Posterior

MASK = "_mask"
BY_POINT, BY_PLACE = ("channel", "y", "x", "value"), ("channel", "y_coord", "x_coord", "value")
SAME = 1e-6  # relative difference of two readings of one point that is none


@dataclass(frozen=True)
class Known:
    """What a file holds: values by channel or joint, masks by channel (None: where values are not NaN), parameters."""

    values: Any
    masks: dict[str, np.ndarray] | None = None
    params: dict[str, np.ndarray] = field(default_factory=dict)


def read_known(generator: Generator, path: Path) -> Known:
    """Read a file of any kind above. Raises UserError."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file of npy, npz or csv") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file of npy, npz or csv") from None
    if head.startswith(b"\x93NUMPY"):
        return Known(_numbers(path, "npy", lambda: np.array(np.load(path, mmap_mode="r", allow_pickle=False))))
    if head.startswith(b"PK"):
        return _read_npz(generator, path)
    if path.suffix.lower() == ".csv":
        return Known(read_sensors(generator, path))
    if head[:1] == b"\x80":
        raise _pickled(path)
    raise UserError(f"{path}: neither npy nor npz, and its name does not end in .csv; save the values as one of them")


def _pickled(path: Path) -> UserError:
    return UserError(
        f"{path}: holds pickled objects, which can run any code and are never loaded; save plain arrays of numbers"
    )


def _numbers(path: Path, kind: str, load: Any) -> Any:
    """What a reader gives; whatever it says of a damaged file is one line."""
    try:
        found = load()
        arrays = found.values() if isinstance(found, dict) else [found]
        if any(one.dtype.kind == "O" for one in arrays):
            raise _pickled(path)
        return found
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy raise of every kind
        if any(word in str(error) for word in ("allow_pickle", "Object arrays", "Python objects")):
            raise _pickled(path) from None
        said = re.sub(r"\s+", " ", str(error))[:120] or type(error).__name__
        raise UserError(f"{path}: truncated or damaged, cannot be read as {kind} ({said}); copy it again") from None


def _read_npz(generator: Generator, path: Path) -> Known:
    def load() -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    arrays = _numbers(path, "npz", load)
    equation = str(arrays.pop("equation", generator.pde.name))
    if equation != generator.pde.name:
        raise UserError(
            f"{path}: of the equation {equation}, the student is of {generator.pde.name}; give the file of that equation, "
            "or load another student"
        )
    values, masks, params = {}, {}, {}
    for name, array in arrays.items():
        if name in generator.pde.varying:
            params[name] = array
        elif name.endswith(MASK) and name not in generator.channels:
            masks[name.removesuffix(MASK)] = array
        elif "/" not in name:  # those are figures beside an answer
            check_channel(generator, name, str(path))
            values[name] = array
    return Known(values, masks or None, params)


@dataclass(frozen=True)
class _Reading:
    line: int
    value: float


def read_sensors(generator: Generator, path: Path) -> dict[str, np.ndarray]:
    """Fields [Y, X] by channel with the readings of a table, NaN elsewhere. Raises UserError that names the line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is no text in UTF-8; save the table as plain text") from None
    found: dict[tuple[str, int, int], _Reading] = {}
    for line, channel, y, x, value in _rows(generator, path, text):
        first = found.setdefault((channel, y, x), _Reading(line, value))
        if not math.isclose(first.value, value, rel_tol=SAME):
            raise UserError(
                f"{path}: lines {first.line} and {line} are {channel} at the same point y={y}, x={x}, of "
                f"{exact(first.value)} and {exact(value)}; keep one, or their mean"
            )
    if not found:
        raise UserError(f"{path}: no sensor in it; expected lines of {','.join(BY_POINT)} below those names")
    fields: dict[str, np.ndarray] = {}
    for (channel, y, x), reading in found.items():
        fields.setdefault(channel, np.full(generator.grid.shape, np.nan))[y, x] = reading.value
    return fields


def _rows(generator: Generator, path: Path, text: str) -> Iterator[tuple[int, str, int, int, float]]:
    """Line number, channel, row, column and value of each sensor."""
    names: list[str] = []
    for line, cells in _lines(path, text):
        where = f"{path}: line {line}"
        if not names:
            names = [cell.lower() for cell in cells]
            if sorted(names) not in (sorted(BY_POINT), sorted(BY_PLACE)):
                wanted = f"{','.join(BY_POINT)} or {','.join(BY_PLACE)}"
                raise UserError(f"{where}: columns {','.join(cells)[:80]!r}; expected {wanted}, separated by commas")
            continue
        if len(cells) != len(names):
            raise UserError(f"{where}: {len(cells)} values, expected {len(names)}: {','.join(names)}")
        yield line, *_sensor(generator, where, dict(zip(names, cells, strict=True)))


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is neither empty nor a comment. No cell goes on over several lines."""
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        try:
            words = line.partition("#")[0]
            cells = [cell.strip() for row in csv.reader([words], skipinitialspace=True) for cell in row]
        except csv.Error as error:
            raise UserError(f"{path}: line {number}: {error}; save the table as plain text") from None
        if any(cells):
            yield number, cells


def _sensor(generator: Generator, where: str, cells: Mapping[str, str]) -> tuple[str, int, int, float]:
    check_channel(generator, cells["channel"], where)
    value = _number(where, "value", cells["value"])
    places = []
    for dim, axis in enumerate(("y", "x")):
        if axis in cells:
            points = generator.grid.shape[dim]
            if not re.fullmatch(r"[0-9]{1,9}", cells[axis]) or int(cells[axis]) >= points:
                raise UserError(
                    f"{where}: {axis}={cells[axis][:80]!r}: expected a whole number from 0 to {points - 1}, inside the grid"
                )
            places.append(int(cells[axis]))
        else:
            places.append(_nearest(generator, where, dim, _number(where, f"{axis}_coord", cells[f"{axis}_coord"])))
    return cells["channel"], places[0], places[1], value


def _number(where: str, name: str, text: str) -> float:
    try:
        number = math.nan if "_" in text else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {name}={text[:80]!r}: expected a finite number")
    return number


def _nearest(generator: Generator, where: str, dim: int, place: float) -> int:
    """The nearest point to a coordinate: points begin at 0, or half a spacing from it on cells; a periodic axis goes
    round."""
    grid = generator.grid
    extent, points = grid.extent[dim], grid.shape[dim]
    if not 0 <= place <= extent:
        raise UserError(
            f"{where}: {'yx'[dim]}_coord={exact(place)}: outside the grid, which goes from 0 to {exact(extent)}"
        )
    steps = place / grid.spacing[dim] - (0.5 if grid.kind == "cell" else 0.0)
    goes_round = grid.kind == "periodic" or (grid.kind == "strip" and dim == 1 and grid.boundary == "periodic")
    index = math.floor(steps + 0.5)
    return index % points if goes_round else min(max(index, 0), points - 1)


def write_answer(path: Path, equation: str, answer: Answer | Posterior) -> None:
    """Write an answer as npz: fields and parameters by name, and figures beside them as `residual/l2` or
    `spread/pressure`."""
    arrays: dict[str, Any] = {"equation": np.array(equation)}
    for name, value in vars(answer).items():
        if isinstance(value, Mapping):
            first = name in ("fields", "mean")  # what an answer's file is read for
            arrays |= {key if first else f"{name}/{key}": one for key, one in value.items()}
        else:
            arrays[f"figures/{name}"] = value
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:  # as numpy.savez writes it, which takes no name of its own arguments
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                plain = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
                np.lib.format.write_array(file, plain, allow_pickle=False)
    try:
        artifact.replace(path, data.getvalue())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None
