"""The grid of a discrete field: extents, spacing, position of its points, and boundary.

Knows no fields, no equations and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

KINDS = ("node", "cell", "periodic", "strip")
BOUNDARIES = ("dirichlet", "zero_flux", "periodic")


@dataclass(frozen=True)
class Grid:
    """A uniform rectangular grid. Raises ValueError for values that do not fit together.

    Attributes:
        shape: Points (Y, X), at least 4 a side.
        extent: Lengths (Ly, Lx), dimensionless unless the equation says otherwise.
        kind: Position of the points: `node` (on both ends), `cell` (at cell centres), `periodic` (without the repeated end
            point), or `strip` (rows are times, the first and the last included; along a row periodic, or with points on both
            ends where the boundary is dirichlet).
        boundary: `dirichlet`, `zero_flux` or `periodic`.
    """

    shape: tuple[int, int]
    extent: tuple[float, float] = (1.0, 1.0)
    kind: str = "node"
    boundary: str = "dirichlet"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.boundary not in BOUNDARIES:
            raise ValueError(
                f"grid kind {self.kind!r}, boundary {self.boundary!r}: expected one of {KINDS}, and of {BOUNDARIES}"
            )
        fitting = {"periodic": ("periodic",), "strip": ("periodic", "dirichlet")}.get(
            self.kind, ("dirichlet", "zero_flux")
        )
        if self.boundary not in fitting:
            raise ValueError(
                f"a grid of kind {self.kind} has a boundary of {' or '.join(fitting)}, not {self.boundary}"
            )
        if not all(isinstance(points, Integral) for points in self.shape):
            raise ValueError(f"grid shape {self.shape}: expected whole numbers")
        if not all(0 < length < math.inf for length in self.extent):
            raise ValueError(f"grid extent {self.extent}: expected finite lengths above 0")
        if min(self.shape) < 4:
            raise ValueError(f"grid shape {self.shape}: at least 4 points a side")

    @property
    def spacing(self) -> tuple[float, float]:
        """Distances of neighbouring points (hy, hx)."""
        missing = {"node": (1, 1), "strip": (1, int(self.boundary != "periodic"))}.get(self.kind, (0, 0))
        return self.extent[0] / (self.shape[0] - missing[0]), self.extent[1] / (self.shape[1] - missing[1])

    def describe(self) -> dict[str, Any]:
        """Return the grid as plain JSON values: shape, extent, kind, boundary."""
        plain = asdict(self)
        return plain | {"shape": list(self.shape), "extent": list(self.extent)}

    @classmethod
    def from_description(cls, plain: Mapping[str, Any]) -> Grid:
        """Return the grid that `describe` gave these values for."""
        height, width = plain["shape"]
        length_y, length_x = plain["extent"]
        return cls((height, width), (length_y, length_x), plain["kind"], plain["boundary"])
