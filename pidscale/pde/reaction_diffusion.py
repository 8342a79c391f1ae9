"""Reaction-diffusion equations of FitzHugh and Nagumo: an activator and an inhibitor that form patterns.

    u_t = D_u lap u + u - u^3 - k - v
    v_t = D_v lap v + u - v             on the square (-1, 1)^2, no flux through its edge

    u, v   activator and inhibitor at cell centres, 11 frames unless `frames` is given

The residual of an interval is (s[n + 1] - s[n]) / dt minus the mean over the interval of the right-hand side, which is taken
from the cubic through four frames: fourth order in time. In space it is the 5-point form with ghost cells that repeat the
edge, second order. The first frame is the state at t = 1 of a simulation that starts from a Gaussian field: 11 frames cannot
resolve the time before, when u quickly approaches its slow manifold. All quantities are dimensionless. D_u = 1e-3, D_v = 5e-3
and k = 5e-3 are those of PDEBench (Takamoto et al., 2022); its white initial noise is replaced by a smooth field, the same at
every resolution.

Terms: `interior`, of every interval and both species, relative to that of a state that does not change. The operators hold
the zero flux, so there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.grid import Grid
from pidscale.ops.spectral import cosine_waves, field_of_cosines, zero_flux_eigenvalues
from pidscale.ops.stencil import laplacian
from pidscale.ops.sweeps import STABLE, Waves
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES
from pidscale.pde.flow import Flow
from pidscale.pde.parameters import read_params
from pidscale.pde.random_fields import cosine_cells

FASTEST = 6.0  # rate of the reaction for which sweeps are stable: |1 - 3 u^2| for |u| up to 1.5


@dataclass(frozen=True)
class ReactionDiffusionParams:
    """Parameters of the equations and of their data.

    Attributes:
        diffusion_u: D_u, 1e-5 to 0.2.
        diffusion_v: D_v, 1e-5 to 0.2.
        source: k, -1 to 1.
        warm_up: Time between the Gaussian field and the first frame, 0 to 100.
        duration: Time from the first frame to the last.
        frames: Number of frames.
        alpha: Exponent of the covariance of the Gaussian field.
        tau: Inverse length of that covariance.
    """

    diffusion_u: float = 1e-3
    diffusion_v: float = 5e-3
    source: float = 5e-3
    warm_up: float = 1.0
    duration: float = 4.0
    frames: int = 11
    alpha: float = 3.0
    tau: float = 10.0


@dataclass(frozen=True)
class ReactionDiffusion(Flow):
    """FitzHugh-Nagumo equations with zero flux at the edge.

    Attributes:
        splits: True: the residual asks the window for the rows that it lacks.
        params: Parameters of the equation.
    """

    splits: ClassVar[bool] = True
    params: ReactionDiffusionParams = ReactionDiffusionParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> ReactionDiffusion:
        """Return the equation with these parameters; UserError for one that is unknown, ill-typed or out of range."""
        own = dict.fromkeys(("diffusion_u", "diffusion_v"), (1e-5, 0.2))
        own |= {"source": (-1.0, 1.0), "warm_up": (0.0, 100.0)}
        p = read_params("reaction_diffusion", ReactionDiffusionParams, given, RANGES | FRAMES | own)
        return cls("reaction_diffusion", ("activator", "inhibitor"), p.frames, p.duration, p)

    @property
    def largest(self) -> float:
        """3.0; beyond it the cubic term makes any fixed time step unstable."""
        return 3.0

    def grid(self, points: int) -> Grid:
        """Return the cells of the square (-1, 1)^2, `points` a side."""
        return Grid((points, points), (2.0, 2.0), "cell", "zero_flux")

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """Return the state at the end of the warm-up, float64 [2, Y, X]."""
        p = self.params
        streams = ("reaction_diffusion/activator", "reaction_diffusion/inhibitor")
        drawn = [cosine_cells(seed, stream, counter, grid.shape, p.alpha, p.tau) for stream in streams]
        start = 0.5 * np.stack(drawn)
        return self._run(start, np.array([0.0, p.warm_up]), grid)[-1] if p.warm_up else start

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Return the frames of both species, float64 [F, 2, Y, X]."""
        return self._run(initial, np.arange(self.frames) * self.interval, grid)

    def _run(self, initial: np.ndarray, times: np.ndarray, grid: Grid) -> np.ndarray:
        """Return the states at these times, float64 [T, 2, Y, X]."""
        from pidscale.pde.solve.cells import react_and_diffuse

        p = self.params

        def reaction(state: np.ndarray) -> np.ndarray:
            u, v = state
            return np.stack([u - u**3 - p.source - v, u - v])

        return react_and_diffuse(initial, np.array([p.diffusion_u, p.diffusion_v]), reaction, times, grid.extent)

    def waves(self, window: Window, like: Tensor) -> Waves:
        """Return cosine waves with their diffusion."""
        return Waves(
            -self._diffusion(like) * zero_flux_eigenvalues(window, like),
            lambda state: cosine_waves(window, state),
            lambda modes: field_of_cosines(window, modes),
        )

    def substeps(self, grid: Grid) -> int:
        """Return the number of steps with which a reaction of the rate FASTEST is stable."""
        return math.ceil(self.interval * FASTEST / STABLE)

    def _diffusion(self, like: Tensor) -> Tensor:
        """Return D_u and D_v [2, 1, 1], in the dtype and on the device of `like`."""
        p = self.params
        return torch.tensor([p.diffusion_u, p.diffusion_v], dtype=like.dtype, device=like.device)[:, None, None]

    def rate(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the right-hand side at every frame."""
        s = frames_BFSYX
        u, v = s.unbind(dim=2)
        curvature = window.stencil(s.flatten(0, 2), 1, lambda u: laplacian(u, window.grid.spacing)).reshape(s.shape)
        reaction = torch.stack([u - u**3 - self.params.source - v, u - v], dim=2)
        return self._diffusion(s) * curvature + reaction
