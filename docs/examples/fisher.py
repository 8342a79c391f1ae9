"""Fisher's equation: a population that spreads and grows up to a limit, at a rate that varies from sample to sample.

    u_t = D lap u + r u (1 - u)   on the unit square, no flux through its edge

    u   population at cell centres, `frames` frames from t = 0 to `duration`
    r   growth rate, drawn for each sample from 1 to 4

A user's own equation in one file: docs/own_equation.md explains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.stencil import laplacian
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES
from pidscale.pde.flow import Flow
from pidscale.pde.parameters import check_span, read_params
from pidscale.pde.random_fields import cosine_cells


@dataclass(frozen=True)
class FisherParams:
    """Parameters of Fisher's equation and of its data.

    Attributes:
        diffusion: D, 1e-5 to 0.1.
        growth_low: Smallest r of a sample, 0.1 to 20.
        growth_high: Largest r of a sample, 0.1 to 20.
        duration: Time from the first frame to the last.
        frames: Number of frames.
        alpha: Exponent of the covariance of the initial state.
        tau: Inverse length of that covariance.
    """

    diffusion: float = 2e-3
    growth_low: float = 1.0
    growth_high: float = 4.0
    duration: float = 1.0
    frames: int = 11
    alpha: float = 3.0
    tau: float = 6.0


@dataclass(frozen=True)
class Fisher(Flow):
    """u_t = D lap u + r u (1 - u), no flux."""

    splits: ClassVar[bool] = True
    params: FisherParams = FisherParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> Fisher:
        """Return the equation with the values of pde.params."""
        own = {"diffusion": (1e-5, 0.1), "growth_low": (0.1, 20.0), "growth_high": (0.1, 20.0)}
        p = read_params("fisher", FisherParams, given, RANGES | FRAMES | own)
        check_span(asdict(p), "growth")
        return cls("fisher:Fisher", ("population",), p.frames, p.duration, p)

    @property
    def varying(self) -> Mapping[str, tuple[float, float]]:
        """Growth rate of each sample."""
        return {"growth": (self.params.growth_low, self.params.growth_high)}

    @property
    def largest(self) -> float:
        """3.0; generated states are clipped to it before they are solved."""
        return 3.0

    def grid(self, points: int) -> Grid:
        """Return the cells of the unit square."""
        return Grid((points, points), (1.0, 1.0), "cell", "zero_flux")

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """Return a population between 0 and 1, [1, Y, X]."""
        field = cosine_cells(seed, "fisher/initial", counter, grid.shape, self.params.alpha, self.params.tau)
        return 1 / (1 + np.exp(-2 * field[None]))

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Return the frames, [F, 1, Y, X]: the data, by cosine modes."""
        from pidscale.pde.solve.cells import react_and_diffuse

        (growth,) = params
        times = np.arange(self.frames) * self.interval
        diffusion = np.array([self.params.diffusion])
        return react_and_diffuse(initial, diffusion, lambda u: growth * u * (1 - u), times, grid.extent)

    def rate(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the rate of change of every frame, [B, F, 1, Y, X]: the equation, by the 5-point form."""
        u = frames_BFSYX
        curvature = window.stencil(u.flatten(0, 2), 1, lambda v: laplacian(v, window.grid.spacing)).reshape(u.shape)
        growth = params_BP[:, :, None, None, None]
        return self.params.diffusion * curvature + growth * u * (1 - u)
