"""What a discrete field lives on: extents, spacing, where its points sit and what bounds it.

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
    """A uniform rectangular grid.

    shape: points (Y, X). extent: lengths (Ly, Lx), dimensionless unless the equation says otherwise.
    kind: `node` (points on both ends), `cell` (centres), `periodic` (no repeated end point), or `strip` (rows are times, the
    first and the last included; along each row periodic, or with points on both ends where the boundary is dirichlet).
    """

    shape: tuple[int, int]
    extent: tuple[float, float] = (1.0, 1.0)
    kind: str = "node"
    boundary: str = "dirichlet"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.boundary not in BOUNDARIES:
            raise ValueError(f"grid kind {self.kind!r} / boundary {self.boundary!r}: expected {KINDS} / {BOUNDARIES}")
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
        """Distance of neighbouring points (hy, hx)."""
        less = {"node": (1, 1), "strip": (1, int(self.boundary != "periodic"))}.get(self.kind, (0, 0))
        return self.extent[0] / (self.shape[0] - less[0]), self.extent[1] / (self.shape[1] - less[1])

    def describe(self) -> dict[str, Any]:
        """The grid as plain JSON values: shape, extent, kind, boundary."""
        plain = asdict(self)
        return plain | {"shape": list(self.shape), "extent": list(self.extent)}

    @classmethod
    def from_description(cls, plain: Mapping[str, Any]) -> Grid:
        """The inverse of `describe`."""
        height, width = plain["shape"]
        length_y, length_x = plain["extent"]
        return cls((height, width), (length_y, length_x), plain["kind"], plain["boundary"])
