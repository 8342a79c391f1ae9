"""Fisher's equation: a population that spreads and grows to what its land can feed, at a rate of each sample's own.

    u_t = D lap u + r u (1 - u)   on the unit square, no flux through its edge

    u   population at cell centres, `frames` frames from t = 0 to `duration`
    r   growth rate, drawn for each sample from 1 to 4

An equation of one's own in one file: docs/own_equation.md walks through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.stencil import laplacian
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, Evolution
from pidscale.pde.parameters import check_params, check_ranges, check_span
from pidscale.pde.random_fields import cosine_cells


@dataclass(frozen=True)
class FisherParams:
    """diffusion: D, 1e-5 to 0.1. growth_low, growth_high: r of a sample. duration, frames, alpha, tau: of the data."""

    diffusion: float = 2e-3
    growth_low: float = 1.0
    growth_high: float = 4.0
    duration: float = 1.0
    frames: int = 11
    alpha: float = 3.0
    tau: float = 6.0


@dataclass(frozen=True)
class Fisher(Evolution):
    """u_t = D lap u + r u (1 - u), no flux."""

    splits: ClassVar[bool] = True
    params: FisherParams = FisherParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Fisher:
        """Build from the values of pde.params."""
        values = check_params("fisher", asdict(FisherParams()), given)
        own = {"diffusion": (1e-5, 0.1), "growth_low": (0.1, 20.0), "growth_high": (0.1, 20.0)}
        check_ranges(values, RANGES | FRAMES | own)
        check_span(values, "growth")
        p = FisherParams(**values)
        return cls("fisher:Fisher", ("population",), p.frames, p.duration, p)

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain values."""
        return asdict(self.params)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """The growth rate of each sample."""
        return {"growth": (self.params.growth_low, self.params.growth_high)}

    @property
    def largest(self) -> float:
        """3.0: a generated state beyond it is cut before it is solved."""
        return 3.0

    def grid(self, points: int) -> Grid:
        """Cells of the unit square."""
        return Grid((points, points), (1.0, 1.0), "cell", "zero_flux")

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """A population between 0 and 1, [1, Y, X]."""
        field = cosine_cells(seed, "fisher/initial", counter, grid.shape, self.params.alpha, self.params.tau)
        return 1 / (1 + np.exp(-2 * field[None]))

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Frames, [F, 1, Y, X]: the data, by cosine modes."""
        from pidscale.pde.solve.cells import react_and_diffuse

        (growth,) = params
        times = np.arange(self.frames) * self.interval
        diffusion = np.array([self.params.diffusion])
        return react_and_diffuse(initial, diffusion, lambda u: growth * u * (1 - u), times, grid.extent)

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """The residual of every interval, [B, F - 1, 1, Y, X]: the law, by the 5-point form."""
        u = frames_BFSYX
        spread = window.stencil(u.flatten(0, 2), 1, lambda v: laplacian(v, window.grid.spacing)).reshape(u.shape)
        growth = params_BP[:, :, None, None, None]
        return one_step_residual(u, self.params.diffusion * spread + growth * u * (1 - u), self.interval)
