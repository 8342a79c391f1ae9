"""Sensors between grid points, read where they are, beside the same readings moved to the nearest grid point.

python -m benchmarks.studies.sensors [--pde darcy poisson burgers] [--seed 0 1 2] [--count 32]
    [--json benchmarks/results/sensors.json]

The students of students/ (seed 0) and benchmarks/students/ reconstruct fields that no training saw from readings of one
channel at random places, without noise. A truth between its grid points is its cubic spline, so that linear interpolation,
which the search uses, has an error too. Rows: `between` reads the places (`points`); `nearest` puts each reading at the
nearest grid point, as values on a grid do; `nearest, own sigma` does so too, with a sigma as large as the error that the
move makes in truths. Places differ between groups of fields. Errors are relative L2 distances to the truth over all points
of a channel. The file keeps the rows of equations and seeds that are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from benchmarks.report import Row, circumstances, finish, merged, options, save
from benchmarks.studies.measure import student_folder
from pidscale.generator.load import load_student
from pidscale.generator.student import Student
from pidscale.generator.tasks.readings import Readings, points
from pidscale.ops.grid import Grid
from pidscale.ops.interpolate import is_periodic, point_coordinates

PDES = ("darcy", "poisson", "burgers")
SENSORS = 31  # 3 % of 32 x 32 points
GROUP = 8  # fields with sensors at the same places
STEPS = 100
STARTS = 2
SEED = 5  # of truths and places; nothing was chosen on them
WRAPPED = 4  # points that a periodic axis repeats beyond each end, for its spline


def true_values(fields_NYX: Tensor, grid: Grid, places_M2: np.ndarray) -> Tensor:
    """Return the cubic splines of fields at places (y, x), float64 [N, M]."""
    axes = [point_coordinates(grid, dim).numpy() for dim in (0, 1)]
    values = fields_NYX.double().numpy()
    for dim, length in enumerate(grid.extent):
        if is_periodic(grid, dim):
            axis = axes[dim]
            axes[dim] = np.concatenate([axis[-WRAPPED:] - length, axis, axis[:WRAPPED] + length])
            values = np.concatenate(
                [values.take(range(-WRAPPED, 0), dim + 1), values, values.take(range(WRAPPED), dim + 1)], dim + 1
            )
    splines = [RectBivariateSpline(*axes, field).ev(places_M2[:, 0], places_M2[:, 1]) for field in values]
    return torch.from_numpy(np.stack(splines))


def draw_places(grid: Grid, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places [M, 2] of sensors, and the grid points [M, 2] that are nearest to them, all of them different."""
    random = np.random.default_rng((SEED, group))
    axes = [point_coordinates(grid, dim).numpy() for dim in (0, 1)]
    ends = [axis[-1] for axis in axes]
    found: dict[tuple[int, int], np.ndarray] = {}
    while len(found) < SENSORS:
        place = random.uniform(0, ends)
        nearest = [int(abs(axis - coordinate).argmin()) for axis, coordinate in zip(axes, place, strict=True)]
        found.setdefault((nearest[0], nearest[1]), place)
    return np.stack(list(found.values())), np.array(list(found))


def errors(student: Student, truth: Tensor, way: str, grid_points: Tensor, readings: Readings, moved: float) -> Tensor:
    """Reconstruct a group of fields in one of three ways.

    Args:
        student: The student.
        truth: Joint fields [N, C, Y, X].
        way: `between`, `nearest` or `nearest, own sigma`.
        grid_points: The grid points nearest to the sensors, [M, 2].
        readings: Those of the sensors, of the last channel.
        moved: Root mean square of what a move to the nearest point changes.

    Returns:
        Errors [N, C].
    """
    search: dict[str, Any] = {"steps": STEPS, "starts": STARTS, "seed": SEED}
    if way == "between":
        answer = student.reconstruct(readings=[readings], **search)
    else:
        values = torch.full_like(truth[:, -1], torch.nan)
        values[:, grid_points[:, 0], grid_points[:, 1]] = readings.values_NM.to(values)
        sigma = moved if way == "nearest, own sigma" else None
        answer = student.reconstruct({student.channels[-1]: values}, sigma=sigma, **search)
    apart = student.join(answer.fields) - truth
    return apart.flatten(2).norm(dim=2) / truth.flatten(2).norm(dim=2)


def rows_of(pde: str, seed: int, count: int) -> Iterator[Row]:
    """Yield the rows of the student of an equation and seed, with the error of every field."""
    student = load_student(student_folder(pde, seed))
    channel = student.channels[-1]
    truth = student.join(student.truths(count, SEED))
    places, nearest = zip(*(draw_places(student.grid, group) for group in range(-(-count // GROUP))), strict=True)
    parts = truth.split(GROUP)
    groups = list(zip(parts, places, map(torch.from_numpy, nearest), strict=True))
    read = [true_values(part[:, -1], student.grid, at) for part, at, _ in groups]
    moves = [part[:, -1, at[:, 0], at[:, 1]] - values for (part, _, at), values in zip(groups, read, strict=True)]
    moved = float(torch.cat([one.flatten() for one in moves]).square().mean().sqrt())
    reference: Sequence[Tensor] = ()
    for way in ("nearest", "nearest, own sigma", "between"):
        each = []
        for (part, at, near), values in zip(groups, read, strict=True):
            each.append(errors(student, part, way, near, points(student, channel, at, values), moved))
        found = torch.cat(each).T
        row: Row = {"pde": pde, "seed": seed, "way": way, "reads": channel, "sensors": SENSORS, "n": count}
        row["moved"] = moved / student.normaliser.std[-1]  # in standard deviations of the channel
        for name, own, of in zip(student.channels, found, reference or found, strict=True):
            row |= {f"error_{name}": fmean(own.tolist()), f"ratio_{name}": float(own.mean() / of.mean())}
            row |= {f"nearer_{name}": float((own < of).double().mean()), f"errors_{name}": own.tolist()}
        reference = reference or list(found)
        yield row


def main() -> None:
    """Reconstruct and write the rows."""
    parser = options(__doc__, "sensors")
    parser.add_argument("--pde", nargs="+", choices=PDES, default=list(PDES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=32)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for pde, seed in product(asked.pde, asked.seed):
        rows = merged(asked.json, list(rows_of(pde, seed, asked.count)), ("pde", "seed", "way"))
        rows.sort(key=lambda row: (PDES.index(row["pde"]), row["seed"]))
        result = {"rows": rows, "meta": circumstances(truths=SEED, steps=STEPS, starts=STARTS)}
        save(asked.json, result)
    finish(asked.json, result, "sensors")


if __name__ == "__main__":
    main()
