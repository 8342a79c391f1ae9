"""A file of foreign data as named arrays: what the reader of each layout returns, and all that a conversion knows of a file.

Nothing is read before it is needed, where the layout allows that. Must not know equations, grids or shards.
The axes of an array are one letter for each dim: N samples, T time, S species or channels, Y and X space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pidscale.config import UserError
from pidscale.convert.layouts.attributes import Attributes
from pidscale.convert.layouts.faults import file_errors

Slices = tuple[slice, ...]
TIME_NAMES = ("t", "time", "times", "t-coordinate", "t_coordinate", "tspan", "valid_time")
COORDINATE_NAMES = {
    "x": ("x", "x-coordinate", "x_coordinate", "grid_x", "xs", "lon", "longitude"),
    "y": ("y", "y-coordinate", "y_coordinate", "grid_y", "ys", "lat", "latitude"),
}
# what other programs call the dims of an array, for each letter
DIM_NAMES = {
    "N": ("n", "sample", "samples", "batch", "realization", "realisation", "realizations", "member", "ensemble", "number",
          "trajectory", "trajectories", "case", "cases", "simulation", "run", "instance", "idx", "index"),
    "T": (*TIME_NAMES, "step", "steps", "timestep", "frame", "frames", "snapshot", "nt"),
    "S": ("s", "channel", "channels", "component", "components", "species", "variable", "variables", "field", "fields"),
    "Y": (*COORDINATE_NAMES["y"], "row", "rows", "height", "ny", "nlat", "south_north"),
    "X": (*COORDINATE_NAMES["x"], "col", "cols", "column", "columns", "width", "nx", "nlon", "west_east"),
}  # fmt: skip

NO_ATTRIBUTES = Attributes()


@dataclass(frozen=True)
class Array:
    """One array of a file.

    Attributes:
        name: The name in the file.
        shape: The length of each dim.
        dtype: The type of the numbers that `read` returns.
        read: Reads a part, given one slice for each dim with a step of 1 or more. The attributes are already applied.
        axes: One letter for each dim where the layout defines them, empty otherwise.
        attributes: What the file declares about the numbers.
        missing_reason: Says why one number, given by slices of length 1, is missing; empty if the file declares nothing.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Slices], np.ndarray]
    axes: str = ""
    attributes: Attributes = NO_ATTRIBUTES
    missing_reason: Callable[[Slices], str] = lambda index: ""

    def read_all(self) -> np.ndarray:
        """Return the whole array; for scalars and coordinates."""
        return self.read(tuple(slice(None) for _ in self.shape))


@dataclass(frozen=True)
class Source:
    """An open file, or several open files that are read as one.

    Attributes:
        path: The file; of several, the text that names them in messages.
        layout: The name of the layout.
        arrays: The arrays that may be fields, by name.
        scalars: Single numbers [] and numbers of each sample [N], by name.
        times: The time coordinate [T]; None if the file has none.
        coordinates: The space coordinates "x" and "y" that the file has.
        boundary: The boundary condition that the file states, by axis.
        notes: Lines for the report of the conversion.
        attributes: The attributes of scalars, of the time coordinate ("t") and of space coordinates, by name.
        files: Of several files, the path and the number of samples of each; empty for one file.
    """

    path: Path
    layout: str
    arrays: Mapping[str, Array]
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)
    times: np.ndarray | None = None
    coordinates: Mapping[str, np.ndarray] = field(default_factory=dict)
    boundary: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    attributes: Mapping[str, Attributes] = field(default_factory=dict)
    files: tuple[tuple[Path, int], ...] = ()

    def __post_init__(self) -> None:
        lines = {"times": self.times, **{f"{axis} coordinate": line for axis, line in self.coordinates.items()}}
        for name, line in lines.items():
            if line is not None and not np.isfinite(line.astype(np.float64)).all():
                count = int((~np.isfinite(line.astype(np.float64))).sum())
                raise UserError(
                    f"{self.path}: {count} of the {line.size} values of its {name} are missing or not finite; repair the file"
                )

    def locate(self, number: int) -> tuple[Path, int]:
        """Return the file that holds a sample, and the number of the sample in that file."""
        for path, count in self.files:
            if number < count:
                return path, number
            number -= count
        return self.path, number

    def sample_name(self, number: int) -> str:
        """Return how messages name a sample: its file, and its number in that file."""
        path, local = self.locate(number)
        return f"{path}: sample {local}"

    def read(self, array: Array, index: Slices) -> np.ndarray:
        """Read a part of an array. Raises UserError if the file is truncated, damaged or cannot be read."""
        with file_errors(self.path, self.layout):
            return np.asarray(array.read(index))


def same_coordinates(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """Return whether two coordinates agree up to rounding to float32, the type in which files store them."""
    if first is None or second is None:
        return first is second
    step = float(np.ptp(first)) / max(1, len(first) - 1) if first.size else 0.0
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-6, atol=1e-3 * step))


def memory_array(name: str, values: np.ndarray, axes: str = "") -> Array:
    """Return an Array of values that are in memory or mapped into it."""
    return Array(name, values.shape, values.dtype, lambda index: values[index], axes)


def build_source(path: Path, layout: str, arrays: Mapping[str, Array], notes: tuple[str, ...] = ()) -> Source:
    """Sort the arrays of a layout without a convention into fields, scalars, times and coordinates by shape and name.

    Args:
        path: The file.
        layout: The name of its layout.
        arrays: All arrays of the file; those that do not hold numbers are ignored.
        notes: Lines for the report of the conversion.

    Returns:
        The source.

    Raises:
        UserError: An array is empty, or the file holds no array of numbers.
    """
    fields: dict[str, Array] = {}
    scalars: dict[str, np.ndarray] = {}
    coordinates: dict[str, np.ndarray] = {}
    attributes: dict[str, Attributes] = {}
    times = None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            continue
        long = [length for length in array.shape if length != 1]
        if 0 in long:
            raise UserError(f"{path}: array '{name}' is empty, shape {list(array.shape)}; download or write it again")
        if len(long) > 1 or (len(array.shape) > 2 and long):
            fields[name] = array
            continue
        last = name.rsplit("/", 1)[-1].lower()
        axis = next((axis for axis, names in COORDINATE_NAMES.items() if last in names), None)
        values = array.read_all()
        key = name
        if long and last in TIME_NAMES:
            key = "t"
            times = values.reshape(-1)
        elif long and axis:
            key = axis
            coordinates[axis] = values.reshape(-1)
        else:
            scalars[name] = values.reshape(-1) if long else values.reshape(())
        attributes[key] = array.attributes
    if not fields and not scalars:
        raise UserError(f"{path}: holds no array of numbers; expected fields [N, Y, X] or [N, T, Y, X]")
    return Source(path, layout, fields, scalars, times, coordinates, notes=notes, attributes=attributes)
