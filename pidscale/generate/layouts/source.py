"""A file of somebody else's data as named arrays: what each layout's reader gives, and all that a conversion needs to know.

Nothing is read before it is asked for, where the layout allows. Must not know equations, grids or shards.
Axes of an array are one letter for each dim: N samples, T times, S species or channels, Y and X places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pidscale.config import UserError

Slices = tuple[slice, ...]
TIMES = ("t", "time", "times", "t-coordinate", "t_coordinate", "tspan")
PLACES = {
    "x": ("x", "x-coordinate", "x_coordinate", "grid_x", "xs"),
    "y": ("y", "y-coordinate", "y_coordinate", "grid_y", "ys"),
}


@dataclass(frozen=True)
class Array:
    """One array: shape and type as stored, axes where the layout says them ("" where not), and how to read a part."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Slices], np.ndarray]  # one slice for each dim, steps of 1 or more
    axes: str = ""

    def whole(self) -> np.ndarray:
        """All of it: for scalars and coordinates."""
        return self.read(tuple(slice(None) for _ in self.shape))


@dataclass(frozen=True)
class Source:
    """A file that is open.

    arrays: those that may be fields. scalars: numbers, [] or [N]. times: [T]. places: coordinates by axis, "x" and "y".
    boundary: what the file says of its edges, by axis. notes: what its reader wants to be said.
    """

    path: Path
    layout: str
    arrays: Mapping[str, Array]
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)
    times: np.ndarray | None = None
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    boundary: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def read(self, array: Array, index: Slices) -> np.ndarray:
        """A part of an array. UserError where the file ends early or is damaged."""
        with readable(self.path, self.layout):
            return np.asarray(array.read(index))


@contextmanager
def readable(path: Path, layout: str) -> Iterator[None]:
    """Turn whatever a library says of a file it cannot read into one line; a pickle is refused by name."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # these libraries raise of every kind for a damaged file
        said = re.sub(r"\s+", " ", str(error).replace(str(path), path.name)).strip()[:160] or type(error).__name__
        code = ("allow_pickle", "Python objects", "Weights only")
        if type(error).__name__ == "UnpicklingError" or any(word in said for word in code):
            raise pickled(path) from None
        raise UserError(
            f"{path}: cannot be read as {layout} ({said}): it is truncated, damaged "
            "or of another layout: fetch it again, or name its layout by layout="
        ) from None


def pickled(path: Path) -> UserError:
    """The refusal of a file that could run code when it is loaded."""
    return UserError(
        f"{path}: holds pickled objects, which can run any code and are never loaded; save plain arrays: npz, HDF5, "
        "or a .pt of a dict of tensors"
    )


def in_memory(name: str, values: np.ndarray, axes: str = "") -> Array:
    """An array that is already there."""
    return Array(name, values.shape, values.dtype, lambda index: values[index], axes)


def sorted_out(path: Path, layout: str, arrays: Mapping[str, Array], notes: tuple[str, ...] = ()) -> Source:
    """A source of arrays without a convention: single numbers and lines are told from fields by shape and name."""
    fields: dict[str, Array] = {}
    scalars: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    times = None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            continue
        long = [n for n in array.shape if n != 1]
        if 0 in long:
            raise UserError(
                f"{path}: array '{name}' is empty, shape {list(array.shape)}; fetch or write the file again"
            )
        last = name.rsplit("/", 1)[-1].lower()
        axis = next((axis for axis, names in PLACES.items() if last in names), None)
        if len(long) > 1 or (len(array.shape) > 2 and long):
            fields[name] = array
        elif long and last in TIMES:
            times = array.whole().reshape(-1)
        elif long and axis:
            places[axis] = array.whole().reshape(-1)
        else:
            scalars[name] = array.whole().reshape(-1) if long else array.whole().reshape(())
    if not fields and not scalars:
        raise UserError(f"{path}: no array of numbers in it; expected fields [N, Y, X] or [N, T, Y, X]")
    return Source(path, layout, fields, scalars, times, places, notes=notes)
