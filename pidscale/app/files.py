"""Files that the command line reads and writes: known values of fields (npy, npz, csv), and samples and answers (npz).

- npy: an array in the form that `observe` accepts, with all channels of the task
- npz: arrays by channel name, in which NaN marks unknown values; masks as NAME_mask; values of parameters by name; optionally
  the name of the equation as `equation`. The file of an answer can be used as input
- csv: a table of sensors, see sensors.py

Pickled objects are never loaded. A UserError names the file. Shapes: as in observations.py. Must not know networks.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pidscale.app.sensors import read_sensors
from pidscale.config import UserError
from pidscale.files import write_atomic
from pidscale.generator.tasks.likeliest import Answer
from pidscale.generator.tasks.readings import check_channel

if TYPE_CHECKING:
    from pidscale.generator.generator import Generator
    from pidscale.generator.tasks.posterior import Posterior

_MASK = "_mask"
_LONGEST_NAME = 200  # bytes; file systems allow 255, and the temporary file during writing has a longer name


@dataclass(frozen=True)
class Known:
    """Contents of a file with known values.

    Attributes:
        values: An array of all channels, or arrays by channel name; NaN marks unknown values.
        masks: Masks by channel name, True at known values; None if all values other than NaN are known.
        params: Values of parameters by name.
        places: Coordinates (y, x) and value of sensors between grid points, by channel name.
    """

    values: Any
    masks: dict[str, np.ndarray] | None = None
    params: dict[str, np.ndarray] = field(default_factory=dict)
    places: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)


def read_known(generator: Generator, path: Path) -> Known:
    """Read known values of fields from an npy, npz or csv file.

    Args:
        generator: Generator whose equation and grid the file must match.
        path: Path of the file.

    Returns:
        The contents of the file.

    Raises:
        UserError: When the file cannot be read, or is of another equation.
    """
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
        sensors = read_sensors(generator, path)
        return Known(sensors.fields or None, places=sensors.places)
    if head[:1] == b"\x80":
        raise UserError(_pickle_message(path))
    raise UserError(f"{path}: neither npy nor npz, and its name does not end in .csv; save the values as one of them")


def _pickle_message(path: Path) -> str:
    return f"{path}: holds pickled objects, which can run any code and are never loaded; save plain arrays of numbers"


def _numbers(path: Path, kind: str, load: Any) -> Any:
    """Return the result of `load`. Raises UserError if the file is damaged or contains pickled objects."""
    try:
        found = load()
        arrays = found.values() if isinstance(found, dict) else [found]
        if any(one.dtype.kind == "O" for one in arrays):
            raise UserError(_pickle_message(path))
        return found
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy raise many types of errors
        if any(word in str(error) for word in ("allow_pickle", "Object arrays", "Python objects")):
            raise UserError(_pickle_message(path)) from None
        reason = re.sub(r"\s+", " ", str(error))[:120] or type(error).__name__
        raise UserError(f"{path}: truncated or damaged, cannot be read as {kind} ({reason}); copy it again") from None


def _read_npz(generator: Generator, path: Path) -> Known:
    def load() -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    arrays = _numbers(path, "npz", load)
    equation = str(arrays.pop("equation", generator.pde.name))
    if equation != generator.pde.name:
        raise UserError(
            f"{path}: of the equation {equation}, the student is of {generator.pde.name}; give a file of that equation, or "
            "another student"
        )
    values: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    params: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name in generator.pde.varying:
            params[name] = array
        elif name.endswith(_MASK) and name not in generator.channels:
            masks[name.removesuffix(_MASK)] = array
        elif "/" not in name:  # names with a slash are figures of an answer
            check_channel(generator, name, str(path))
            values[name] = array
    return Known(values, masks or None, params)


def check_target(option: str, path: Path, ending: str, known: Path | None = None) -> None:
    """Check that an output file can be written, before its contents are computed.

    Args:
        option: Option that names the file, for messages.
        path: Path of the file.
        ending: Required suffix of the name.
        known: Input file, which must not be overwritten.

    Raises:
        UserError: When the file cannot be written, or is the input file.
    """
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise UserError(f"{option}={path}: a name of more than {_LONGEST_NAME} bytes; give a shorter one")
    if path.suffix != ending:
        raise UserError(f"{option}={path}: expected a name that ends in {ending}")
    if not path.parent.is_dir():
        raise UserError(f"{option}={path}: no folder {path.parent}; make it first")
    if path.is_dir():
        raise UserError(f"{option}={path}: is a folder; name a file in it")
    if known is not None and path.exists() and known.exists() and path.samefile(known):
        raise UserError(f"{option}={path}: is --input too, and would be lost; name another file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{option}={path}: {error.strerror}; name a file that can be written") from None


def write_answer(path: Path, equation: str, answer: Answer | Posterior) -> None:
    """Write an answer as npz.

    Args:
        path: Path of the file.
        equation: Name of the equation.
        answer: Answer whose fields and parameters are written by name, and its figures as `residual/l2` or `spread/pressure`;
            those of the answer that it started from as `first/pressure` and `first/residual/l2`.
    """
    write_npz(path, {"equation": equation, **_arrays(answer)})


def _arrays(answer: Answer | Posterior) -> dict[str, Any]:
    """Return what an answer holds as arrays by name."""
    arrays: dict[str, Any] = {}
    for name, value in vars(answer).items():
        if isinstance(value, Mapping):
            bare = name in ("fields", "mean")  # written without a prefix, because readers look for these
            arrays |= {key if bare else f"{name}/{key}": one for key, one in value.items()}
        elif isinstance(value, Answer):
            arrays |= {f"{name}/{key}": one for key, one in _arrays(value).items()}
        elif value is not None:
            arrays[f"figures/{name}"] = value
    return arrays


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an npz file atomically.

    Args:
        path: Path of the file.
        arrays: Arrays, tensors on the CPU, numbers or strings by name.

    Raises:
        UserError: When the file cannot be written.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:  # same format as numpy.savez, which rejects the name `file`
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                plain = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
                np.lib.format.write_array(file, plain, allow_pickle=False)
    try:
        write_atomic(path, data.getvalue())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None
