"""Where the points of a file lie and what bounds its fields, compared with what the equation's operators assume.

A finding is an error, or a warning if the user forces the conversion. Must not know the layouts of files, or shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pidscale.config import UserError, distinct
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde

# Values on an edge where the solution should be zero, relative to the solution's root mean square. Float32 leaves 1e-7; a
# sub-sampled set without its last row has the value one spacing inside, 0.3 at 16 points a side.
MAX_ZERO_EDGE = 1e-4  # up to here the edge counts as zero
MAX_EDGE = 0.5  # above this the field has another boundary condition
CELL_OFFSETS = (0.35, 0.8)  # spacings outside the edge at which cell centres vanish; 1/2 if the field is straight there
MAX_REPEATED = 1e-5  # largest difference of an end point from the first point that it repeats, relative to the field
MAX_JUMP = 5.0  # largest step across a periodic edge, in root mean square steps between neighbours
_SIDES = {
    "first y": (0, 1, 1),
    "last y": (-1, -2, 1),
    "first x": (0, 1, 2),
    "last x": (-1, -2, 2),
}  # edge, inner row, dim


@dataclass
class EdgeSums:
    """Sums at the edges of fields, over all samples.

    Attributes:
        square: Sum of the squares of all values.
        count: Number of values.
        sides: For each side the sums of edge^2, rise^2 and edge * rise, and the number of edge points; the rise goes from the
            edge to the next row.
        steps: For each axis the sums over fields of the mean square jump across the periodic edge and of the mean square step
            between neighbours, the number of fields, and the largest jump.
    """

    square: float = 0.0
    count: int = 0
    sides: dict[str, np.ndarray] = field(default_factory=dict)
    steps: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, fields: np.ndarray) -> None:
        """Add fields [B, Y, X], float64."""
        self.square += float(np.square(fields).sum())
        self.count += fields.size
        for side, (at, inner, axis) in _SIDES.items():
            edge = fields.take(at, axis=axis)
            rise = fields.take(inner, axis=axis) - edge
            sums = np.array([np.square(edge).sum(), np.square(rise).sum(), (edge * rise).sum(), edge.size])
            self.sides[side] = self.sides.get(side, np.zeros(4)) + sums
        for name, axis in (("y", 1), ("x", 2)):
            jump = fields.take(0, axis=axis) - fields.take(-1, axis=axis)
            inside = np.square(np.diff(fields, axis=axis)).mean()
            old = self.steps.get(name, np.zeros(4))
            new = np.array([np.square(jump).mean() * len(fields), inside * len(fields), len(fields), abs(jump).max()])
            self.steps[name] = np.array([*(old[:3] + new[:3]), max(old[3], new[3])])

    @property
    def rms(self) -> float:
        """Root mean square of the fields."""
        return float(np.sqrt(self.square / max(1, self.count)))

    def relative_edge(self, side: str | None = None) -> float:
        """Return the root mean square on one side, or on the whole edge, relative to that of the fields."""
        chosen = [self.sides[side]] if side else list(self.sides.values())
        squares = sum(s[0] for s in chosen)
        points = sum(s[3] for s in chosen)
        return float(np.sqrt(squares / points)) / max(self.rms, 1e-300)

    def zero_offset(self, side: str) -> float:
        """Return how many spacings outside the edge a straight line through the field vanishes: 0 on nodes, 1/2 on cells."""
        _, rise, product, _ = self.sides[side]
        return float(product / rise) if rise > 0 else 0.0


def build_grid(pde: Pde, shape: tuple[int, int], kind: str | None, where: str) -> Grid:
    """Build the grid of a file's fields.

    Args:
        pde: The equation.
        shape: The points (Y, X) of a stored field.
        kind: The kind of grid that the user states; None for the equation's own.
        where: The file, for messages.

    Returns:
        The grid.

    Raises:
        UserError: The equation's operators do not support the kind or the size.
    """
    try:
        own = pde.grid(max(4, *shape))
        grid = replace(own, shape=shape)
    except ValueError as error:
        raise UserError(f"{where}: {error}; {pde.name} needs more points, use a finer set") from None
    if kind is not None and kind != own.kind:
        raise UserError(
            f"grid={kind}: {pde.name} is measured on {own.kind} grids only; interpolate the fields to such points first, or "
            f"set grid={own.kind} force=true to accept them unchanged"
        )
    return grid


def check_coordinates(grid: Grid, coordinates: Mapping[str, np.ndarray], dropped: Mapping[str, int]) -> list[str]:
    """Compare the space coordinates of a file with the grid.

    Args:
        grid: The grid of the set.
        coordinates: The coordinates "x" and "y" that the file has.
        dropped: The number of points that are dropped at the end of each axis.

    Returns:
        Findings: a coordinate that decreases, has uneven steps, another length, or points of another kind of grid.
    """
    found = []
    lengths = {"x": grid.extent[1]} if grid.kind == "strip" else {"y": grid.extent[0], "x": grid.extent[1]}
    for axis, length in lengths.items():
        if axis in coordinates and len(coordinates[axis]) >= 4:
            line = coordinates[axis].astype(np.float64)
            found += _check_coordinate(grid, axis, line[: len(line) - dropped.get(axis, 0)], length)
    return found


def _check_coordinate(grid: Grid, axis: str, line: np.ndarray, length: float) -> list[str]:
    """Return what is wrong with one coordinate, at most one finding."""
    steps = np.diff(line)
    step = float(steps.mean())
    if (steps < 0).all():
        return [f"its {axis} coordinate decreases; reverse that axis first"]
    if not (abs(steps - step) <= 1e-3 * abs(step)).all():
        shortest, longest = distinct(steps.min(), steps.max(), digits=3)
        return [f"its {axis} coordinate has uneven steps ({shortest} to {longest}); only even ones are supported"]
    both_ends = grid.kind == "node" or (grid.kind == "strip" and grid.boundary == "dirichlet")
    span = abs(line[-1] - line[0])
    period = abs(line[-1] - line[0] + step)
    expected, other = (span, period) if both_ends else (period, span)
    if abs(expected - length) <= 0.1 * abs(step):
        return []
    if abs(other - length) <= 0.1 * abs(step):
        kind = "cell centres, or no last point" if both_ends else "points on both ends"
        needed = "points on both ends" if both_ends else f"{grid.kind} points"
        return [
            f"its {axis} coordinate goes from {line[0]:.4g} to {line[-1]:.4g} in {len(line)} points: {kind}, "
            f"but {needed} are needed; interpolate the fields to such points first"
        ]
    spans, domain = distinct(expected, length)
    return [
        f"its {axis} coordinate spans {spans} in {len(line)} points, the equation's domain {domain}; "
        "rescale lengths and parameters first"
    ]


def check_zero_edge(name: str, edges: EdgeSums, grid: Grid) -> tuple[list[str], list[str]]:
    """Check a field that must be zero on the edge of a node grid.

    Args:
        name: The name of the field.
        edges: Its sums at the edges.
        grid: The grid of the set.

    Returns:
        Errors and warnings.
    """
    edge = edges.relative_edge()
    if edge <= MAX_ZERO_EDGE:
        return [], []
    offsets = {side: edges.zero_offset(side) for side in edges.sides}
    found = f"{name} on the edge is {edge:.2g} of its root mean square, where {grid.boundary} nodes are zero"
    low, high = CELL_OFFSETS
    if all(low <= offset <= high for offset in offsets.values()):
        return [
            f"{found}; it would be zero about half a spacing outside all sides, so these are cell centres, not nodes: "
            "interpolate the fields to nodes first"
        ], []
    if edge > MAX_EDGE:
        return [f"{found}; the field has another boundary condition: check channels, axes and the equation"], []
    far = [side for side, offset in offsets.items() if offset > high and edges.relative_edge(side) > 0.01]
    why = "the edge is not exact"
    if far:
        why = f"it would be zero a spacing or more outside {' and '.join(far)}: the last points were omitted"
    return [], [f"{found} ({why}); the boundary residual includes it"]


def check_periodic(name: str, edges: EdgeSums, axes: str) -> list[str]:
    """Check a field that must be periodic and must not repeat its first point.

    Args:
        name: The name of the field.
        edges: Its sums at the edges.
        axes: The periodic axes, "x" or "yx".

    Returns:
        Errors.
    """
    found = []
    for axis in axes:
        jump, inside, _, largest = edges.steps[axis]
        if largest <= MAX_REPEATED * edges.rms:
            found.append(
                f"{name} repeats its first point at the end of {axis}; a periodic grid has each point once: set drop_end=true"
            )
        elif jump > MAX_JUMP**2 * inside:
            ratio = np.sqrt(jump / inside)
            found.append(
                f"{name} jumps across the periodic edge of {axis} by {ratio:.0f} times the step between neighbours, so it is "
                "not periodic; check axes and the equation"
            )
    return found


def check_stated_boundary(grid: Grid, boundary: Mapping[str, str]) -> list[str]:
    """Compare the boundary conditions that a file states with the grid.

    Args:
        grid: The grid of the set.
        boundary: The boundary condition of each axis, in lower case.

    Returns:
        Findings.
    """
    axes = "x" if grid.kind == "strip" else "yx"
    return [
        f"its boundary along {axis} is stated as {boundary[axis]}, the equation's is {grid.boundary}; choose another equation"
        for axis in axes
        if boundary.get(axis) and (boundary[axis] == "periodic") != (grid.boundary == "periodic")
    ]
