"""A file of somebody else's data as named arrays: what each layout's reader gives, and all that a conversion needs to know.

Nothing is read before it is asked for, where the layout allows. Must not know equations, grids or shards.
Axes of an array are one letter for each dim: N samples, T times, S species or channels, Y and X places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.faults import readable
from pidscale.convert.layouts.said import Said

Slices = tuple[slice, ...]
TIMES = ("t", "time", "times", "t-coordinate", "t_coordinate", "tspan", "valid_time")
PLACES = {
    "x": ("x", "x-coordinate", "x_coordinate", "grid_x", "xs", "lon", "longitude"),
    "y": ("y", "y-coordinate", "y_coordinate", "grid_y", "ys", "lat", "latitude"),
}
# what others call the dims of an array, for each letter
DIMS = {
    "N": ("n", "sample", "samples", "batch", "realization", "realisation", "realizations", "member", "ensemble", "number",
          "trajectory", "trajectories", "case", "cases", "simulation", "run", "instance", "idx", "index"),
    "T": (*TIMES, "step", "steps", "timestep", "frame", "frames", "snapshot", "nt"),
    "S": ("s", "channel", "channels", "component", "components", "species", "variable", "variables", "field", "fields"),
    "Y": (*PLACES["y"], "row", "rows", "height", "ny", "nlat", "south_north"),
    "X": (*PLACES["x"], "col", "cols", "column", "columns", "width", "nx", "nlon", "west_east"),
}  # fmt: skip


NOTHING_SAID = Said()


@dataclass(frozen=True)
class Array:
    """One array: its shape, the type of its numbers, and how to read a part.

    axes: where the layout says them, "" where not. said: what the file says of its numbers; `read` obeys it already.
    why: of one value, by an index of single slices, why it is no number; "" where the file does not say so.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Slices], np.ndarray]  # one slice for each dim, steps of 1 or more
    axes: str = ""
    said: Said = NOTHING_SAID
    why: Callable[[Slices], str] = lambda index: ""

    def whole(self) -> np.ndarray:
        """All of it: for scalars and coordinates."""
        return self.read(tuple(slice(None) for _ in self.shape))


@dataclass(frozen=True)
class Source:
    """A file that is open.

    arrays: those that may be fields. scalars: numbers, [] or [N]. times: [T]. places: coordinates by axis, "x" and "y".
    boundary: what the file says of its edges, by axis. notes: what its reader wants to be said. said: of the arrays that
    became scalars, times ("t") and places. files: of several that are read as one, path and samples of each.
    """

    path: Path
    layout: str
    arrays: Mapping[str, Array]
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)
    times: np.ndarray | None = None
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    boundary: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    said: Mapping[str, Said] = field(default_factory=dict)
    files: tuple[tuple[Path, int], ...] = ()

    def __post_init__(self) -> None:
        for name, line in {"times": self.times, **{f"{axis} coordinate": v for axis, v in self.places.items()}}.items():
            if line is not None and not np.isfinite(line.astype(np.float64)).all():
                count = int((~np.isfinite(line.astype(np.float64))).sum())
                raise UserError(
                    f"{self.path}: {count} of the {line.size} values of its {name} are missing or not finite; mend the file"
                )

    def place(self, number: int) -> tuple[Path, int]:
        """The file of a sample, and its number there."""
        for path, count in self.files:
            if number < count:
                return path, number
            number -= count
        return self.path, number

    def sample(self, number: int) -> str:
        """How messages call a sample."""
        path, own = self.place(number)
        return f"{path}: sample {own}"

    def read(self, array: Array, index: Slices) -> np.ndarray:
        """A part of an array. UserError where the file ends early, is damaged, or cannot be read for another cause."""
        with readable(self.path, self.layout):
            return np.asarray(array.read(index))


def same_line(had: np.ndarray | None, has: np.ndarray | None) -> bool:
    """Whether two coordinates are the same but for the rounding of float32, which files hold."""
    if had is None or has is None:
        return had is has
    step = float(np.ptp(had)) / max(1, len(had) - 1) if had.size else 0.0
    return had.shape == has.shape and bool(np.allclose(had, has, rtol=1e-6, atol=1e-3 * step))


def in_memory(name: str, values: np.ndarray, axes: str = "") -> Array:
    """An array that is already there."""
    return Array(name, values.shape, values.dtype, lambda index: values[index], axes)


def sorted_out(path: Path, layout: str, arrays: Mapping[str, Array], notes: tuple[str, ...] = ()) -> Source:
    """A source of arrays without a convention: single numbers and lines are told from fields by shape and name."""
    fields: dict[str, Array] = {}
    scalars: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    said: dict[str, Said] = {}
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
            continue
        values = array.whole()
        if long and last in TIMES:
            times, name = values.reshape(-1), "t"
        elif long and axis:
            places[axis], name = values.reshape(-1), axis
        else:
            scalars[name] = values.reshape(-1) if long else values.reshape(())
        said[name] = array.said
    if not fields and not scalars:
        raise UserError(f"{path}: no array of numbers in it; expected fields [N, Y, X] or [N, T, Y, X]")
    return Source(path, layout, fields, scalars, times, places, notes=notes, said=said)
