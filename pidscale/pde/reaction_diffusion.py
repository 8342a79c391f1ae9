"""Reaction and diffusion of FitzHugh and Nagumo: an activator and an inhibitor that form patterns.

    u_t = D_u lap u + u - u^3 - k - v
    v_t = D_v lap v + u - v             on the square (-1, 1)^2, no flux through its edge

    u, v   activator and inhibitor at cell centres, 11 frames

The residual of an interval is (s[n + 1] - s[n]) / dt minus the mean over the interval of the right-hand side, by the cubic
through four frames: fourth order in time; in space the 5-point form with ghost cells that repeat the edge, second order. The
first frame is the state at t = 1 of a run from a Gaussian field: what happens before, the fast approach of u to its slow
manifold, no 11 frames could resolve. Units: all dimensionless. Recipe: D_u = 1e-3, D_v = 5e-3, k = 5e-3 of PDEBench (Takamoto
et al., 2022), whose white initial noise is replaced by a smooth field, the same at every resolution.

Terms: `interior`, of every interval and both species; scale: that of a state that stands still. The zero flux is in the
operators, so there is no boundary term. Knows no files, no models and no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.stencil import laplacian
from pidscale.ops.window import Window
from pidscale.pde.evolution import FRAMES, RANGES, Evolution
from pidscale.pde.parameters import check_params, check_ranges
from pidscale.pde.random_fields import cosine_cells


@dataclass(frozen=True)
class ReactionDiffusionParams:
    """diffusion_u, diffusion_v: 1e-5 to 0.2. source: k, -1 to 1. warm_up: time before frame 0. alpha, tau: initial law."""

    diffusion_u: float = 1e-3
    diffusion_v: float = 5e-3
    source: float = 5e-3
    warm_up: float = 1.0
    duration: float = 4.0
    frames: int = 11
    alpha: float = 3.0
    tau: float = 10.0


@dataclass(frozen=True)
class ReactionDiffusion(Evolution):
    """FitzHugh-Nagumo, no flux."""

    splits: ClassVar[bool] = True
    params: ReactionDiffusionParams = ReactionDiffusionParams()

    @classmethod
    def from_params(cls, given: Mapping[str, Any]) -> ReactionDiffusion:
        """Build from plain values. Raises UserError for an unknown parameter, a wrong type or a wrong range."""
        values = check_params("reaction_diffusion", asdict(ReactionDiffusionParams()), given)
        speeds = dict.fromkeys(("diffusion_u", "diffusion_v"), (1e-5, 0.2))
        check_ranges(values, RANGES | FRAMES | speeds | {"source": (-1.0, 1.0), "warm_up": (0.0, 100.0)})
        p = ReactionDiffusionParams(**values)
        return cls("reaction_diffusion", ("activator", "inhibitor"), p.frames, p.duration, p)

    @property
    def largest(self) -> float:
        """3.0: beyond it the cubic term outruns any fixed step."""
        return 3.0

    def params_dict(self) -> dict[str, Any]:
        """The parameters as plain JSON values."""
        return asdict(self.params)

    def grid(self, points: int) -> Grid:
        """Cells of the square (-1, 1)^2, `points` a side."""
        return Grid((points, points), (2.0, 2.0), "cell", "zero_flux")

    def initial(self, seed: int, counter: int, grid: Grid) -> np.ndarray:
        """The state at the end of the warm-up, [2, Y, X]."""
        p, names = self.params, ("activator", "inhibitor")
        drawn = [
            cosine_cells(seed, f"reaction_diffusion/{name}", counter, grid.shape, p.alpha, p.tau) for name in names
        ]
        start = 0.5 * np.stack(drawn)
        return self._run(start, np.array([0.0, p.warm_up]), grid)[-1] if p.warm_up else start

    def integrate(self, initial: np.ndarray, grid: Grid, params: Sequence[float] = ()) -> np.ndarray:
        """Frames of both species, [F, 2, Y, X]."""
        return self._run(initial, np.arange(self.frames) * self.interval, grid)

    def _run(self, initial: np.ndarray, times: np.ndarray, grid: Grid) -> np.ndarray:
        from pidscale.pde.solve.cells import react_and_diffuse

        p = self.params

        def reaction(state: np.ndarray) -> np.ndarray:
            u, v = state
            return np.stack([u - u**3 - p.source - v, u - v])

        return react_and_diffuse(initial, np.array([p.diffusion_u, p.diffusion_v]), reaction, times, grid.extent)

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """The residual of every interval, [B, F - 1, 2, Y, X]."""
        p, s = self.params, frames_BFSYX
        u, v = s[:, :, 0], s[:, :, 1]
        spread = window.stencil(s.flatten(0, 2), 1, lambda u: laplacian(u, window.grid.spacing)).reshape(s.shape)
        reaction = torch.stack([u - u**3 - p.source - v, u - v], dim=2)
        speeds = torch.tensor([p.diffusion_u, p.diffusion_v], dtype=s.dtype, device=s.device)
        return one_step_residual(s, speeds[:, None, None] * spread + reaction, self.interval)
