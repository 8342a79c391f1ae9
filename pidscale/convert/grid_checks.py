"""Where the points of a file sit and what bounds its fields, against what the equation's operators take for granted.

A finding is an error, or a warning where the set is asked for by force. Must not know files' layouts or shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pidscale.config import UserError
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde

# An edge where the solution should be zero, as a share of the solution's root mean square. Float32 leaves 1e-7; a sub-sampled
# set that lacks its last row has the value one spacing inside, 0.3 at 16 points a side.
EDGE_EXACT = 1e-4
EDGE_MOST = 0.5
REPEATED = 1e-5  # largest difference of an end point to its repetition, as a share of the field
JUMP = 5.0  # step across a periodic edge over the typical step between neighbours


@dataclass
class Edges:
    """Sums over all samples of what an edge shows, by side: squares, products with the next row, steps and their count."""

    square: float = 0.0
    count: int = 0
    sides: dict[str, np.ndarray] = field(default_factory=dict)  # edge^2, (next - edge)^2, edge (next - edge), points
    steps: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # jump^2, inner step^2, both as means, fields; largest jump

    def add(self, fields: np.ndarray) -> None:
        """Take in fields [B, Y, X], float64."""
        self.square += float(np.square(fields).sum())
        self.count += fields.size
        rows = {"first y": (0, 1, 1), "last y": (-1, -2, 1), "first x": (0, 1, 2), "last x": (-1, -2, 2)}
        for side, (at, inner, axis) in rows.items():
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
    def size(self) -> float:
        """Root mean square of the fields."""
        return float(np.sqrt(self.square / max(1, self.count)))

    def share(self, side: str | None = None) -> float:
        """Root mean square of one side, or of the whole edge, relative to that of the fields."""
        chosen = [self.sides[side]] if side else list(self.sides.values())
        squares, points = sum(s[0] for s in chosen), sum(s[3] for s in chosen)
        return float(np.sqrt(squares / points)) / max(self.size, 1e-300)

    def offset(self, side: str) -> float:
        """How many spacings outside the edge the field would vanish, by a straight line: 0 on nodes, 1/2 on cells."""
        _, rise, product, _ = self.sides[side]
        return float(product / rise) if rise > 0 else 0.0


def grid_of(pde: Pde, shape: tuple[int, int], kind: str | None, where: str) -> Grid:
    """The grid of a file's fields. UserError for a kind or size that the equation's operators do not take.

    where: the file, for messages.
    """
    try:
        own = pde.grid(max(4, *shape))
        grid = replace(own, shape=shape)
    except ValueError as error:
        raise UserError(f"{where}: {error}; {pde.name} cannot live on that, take a finer set") from None
    if kind is not None and kind != own.kind:
        raise UserError(
            f"grid={kind}: {pde.name} is measured on {own.kind} grids only; bring the fields to such points first, or set "
            f"grid={own.kind} force=true to take them as they stand"
        )
    return grid


def check_places(grid: Grid, places: Mapping[str, np.ndarray], trimmed: Mapping[str, int]) -> list[str]:
    """Findings about coordinates: falling, uneven, of another length, or at other points than the grid's kind has."""
    found = []
    lengths = {"x": grid.extent[1]} if grid.kind == "strip" else {"y": grid.extent[0], "x": grid.extent[1]}
    ends = grid.kind == "node" or (grid.kind == "strip" and grid.boundary == "dirichlet")
    for axis, length in lengths.items():
        if axis not in places or len(places[axis]) < 4:
            continue
        line = places[axis].astype(np.float64)
        line = line[: len(line) - trimmed.get(axis, 0)]
        steps = np.diff(line)
        step = float(steps.mean())
        if (steps < 0).all():
            found.append(f"its {axis} coordinate falls; reverse that axis first")
            continue
        if not (abs(steps - step) <= 1e-3 * abs(step)).all():
            found.append(
                f"its {axis} coordinate is uneven ({steps.min():.3g} to {steps.max():.3g}); only even points can be used"
            )
            continue
        span, around = abs(line[-1] - line[0]), abs(line[-1] - line[0] + step)
        wanted, other = (span, around) if ends else (around, span)
        if abs(wanted - length) <= 0.1 * abs(step):
            continue
        if abs(other - length) <= 0.1 * abs(step):
            sit, wanted_there = "points on both ends", f"{grid.kind} points"
            if ends:
                sit, wanted_there = "cell centres, or without the last point", "points on both ends"
            found.append(
                f"its {axis} coordinate goes from {line[0]:.4g} to {line[-1]:.4g} in {len(line)} points: {sit}, "
                f"but {wanted_there} are needed; bring the fields to such points first"
            )
        else:
            found.append(
                f"its {axis} coordinate spans {wanted:.4g} in {len(line)} points, the equation lives on {length:g}; "
                "rescale lengths and parameters first"
            )
    return found


def check_zero_edge(name: str, edges: Edges, grid: Grid) -> tuple[list[str], list[str]]:
    """Errors and warnings of a field that must vanish on the edge of nodes."""
    share = edges.share()
    if share <= EDGE_EXACT:
        return [], []
    offsets = {side: edges.offset(side) for side in edges.sides}
    found = f"{name} on the edge is {share:.2g} of its root mean square, where {grid.boundary} nodes have zero"
    if all(0.35 <= offset <= 0.8 for offset in offsets.values()):
        return [
            f"{found}; it would vanish about half a spacing outside all sides, so these are cell centres, not nodes: bring "
            "the fields to nodes first"
        ], []
    if share > EDGE_MOST:
        return [f"{found}; this boundary is another one: check channels, axes and the equation"], []
    late = [side for side, offset in offsets.items() if offset > 0.8 and edges.share(side) > 0.01]
    why = (
        f"it vanishes a spacing or more outside {' and '.join(late)}: the last points were left out"
        if late
        else "not exact"
    )
    return [], [f"{found} ({why}); the boundary residual counts it"]


def check_periodic(name: str, edges: Edges, axes: str) -> list[str]:
    """Errors of a field that must be periodic, without a repeated end point."""
    found = []
    for axis in axes:
        jump, inside, _, largest = edges.steps[axis]
        if largest <= REPEATED * edges.size:
            found.append(
                f"{name} repeats its first point at the end of {axis}; periodic points come once: set drop_end=true"
            )
        elif jump > JUMP**2 * inside:
            ratio = np.sqrt(jump / inside)
            found.append(
                f"{name} steps across the periodic edge of {axis} {ratio:.0f} times as far as between neighbours, so it is "
                "not periodic; check axes and the equation"
            )
    return found


def check_stated(grid: Grid, boundary: Mapping[str, str]) -> list[str]:
    """Findings about the boundary that a file states, by axis."""
    axes = "x" if grid.kind == "strip" else "yx"
    return [
        f"its boundary along {axis} is stated as {boundary[axis]}, the equation's is {grid.boundary}; choose another equation"
        for axis in axes
        if boundary.get(axis) and (boundary[axis] == "periodic") != (grid.boundary == "periodic")
    ]
