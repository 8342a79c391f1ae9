"""Base class of equations u_t = F(u): frames whose residual and solver steps both follow from the rate of change F.

The residual of an interval is the change over it minus the mean rate, taken from the cubic through four frames: fourth order
in time. Solver steps are sweeps of deferred correction (ops/sweeps.py). Knows no files, no models and no ranks.
Shapes: as in evolution.py.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.ops.evolution import one_step_residual
from pidscale.ops.grid import Grid
from pidscale.ops.sweeps import Sweeps, Waves
from pidscale.ops.window import Window
from pidscale.pde.evolution import Evolution


@dataclass(frozen=True)
class Flow(Evolution):
    """Frames of one or more species that follow a rate of change."""

    @abstractmethod
    def rate(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the rate of change of each frame, from this frame alone.

        Args:
            frames_BFSYX: Frames, the rows at hand.
            window: The rows at hand and the way to ask for the others.
            params_BP: Varying parameters of each sample.

        Returns:
            Rates [B, F, S, Y, X].
        """

    def waves(self, window: Window, like: Tensor) -> Waves:
        """Return waves in which a linear part of the rate is diagonal, so that sweeps integrate it exactly; by default none.

        Args:
            window: The rows at hand.
            like: Tensor whose dtype and device the exponents have.

        Returns:
            The waves.
        """
        return Waves(torch.zeros((), dtype=like.dtype, device=like.device), _same, _same)

    def substeps(self, grid: Grid) -> int:
        """Return the number of Runge-Kutta steps of a sweep in an interval that is stable on this grid; by default 1."""
        return 1

    def interval_residual(self, frames_BFSYX: Tensor, window: Window, params_BP: Tensor) -> Tensor:
        """Return the residual of every interval, [B, F - 1, S, Y, X]."""
        return one_step_residual(frames_BFSYX, self.rate(frames_BFSYX, window, params_BP), self.interval)

    def correct(self, window: Window, fields_BCYX: Tensor, params_BP: Tensor, steps: int) -> Tensor:
        """Return the fields after sweeps of deferred correction, each of which takes four rates a substep."""
        sweeps = Sweeps(
            rate=lambda frames, params: self.rate(frames, window, params),
            waves=self.waves(window, fields_BCYX),
            interval=self.interval,
            substeps=self.substeps(window.grid),
            size=lambda values: self.size(values, window),
        )
        return sweeps.correct(self._frames(fields_BCYX), params_BP, steps).flatten(1, 2)


def _same(values: Tensor) -> Tensor:
    return values
