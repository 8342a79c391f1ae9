"""Pictures of a training for the board: samples from the same noise at every step, and their residuals. Knows no networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from pidscale.dataset.problem import Problem
from pidscale.figures.fields import layers
from pidscale.figures.progress import POINTS, Layers, progress_picture
from pidscale.meter import Board
from pidscale.ops.window import Window
from pidscale.pde.base import Samples
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import NORMS

PICTURED = 3  # samples of a set
TAG = "fields"  # name of the pictures on the board


class Pictures:
    """The pictures of one attempt of a phase. The ranks that share the first fields call its methods; the first one draws.

    Args:
        problem: Equation and data, which has the truths of the pictures.
        window: Rows of this rank.
        device: Device of the samples.
        board: Board that the pictures are added to.
    """

    def __init__(self, problem: Problem, window: Window, device: torch.device, board: Board) -> None:
        self.problem = problem
        self.window = window
        self.device = device
        self.board = board
        self.fixed: dict[str, Layers] = {}  # what is drawn of the sets that stay the same
        self.residuals: dict[str, dict[str, float]] = {}  # those of these sets, by norm

    def fix_truths(self) -> None:
        """Add held-out truths as the first set."""
        self.fix("truth", self.problem.held_out(PICTURED, self.window.rows).on(self.device))

    def fix(self, label: str, samples: Samples) -> None:
        """Add a set of samples, in physical units, to all pictures that follow."""
        self.fixed[label] = self._layers(samples)
        self.residuals[label] = self._measured(samples)

    def draw(self, sets: Mapping[str, Samples], step: int) -> dict[str, dict[str, float]]:
        """Draw the fixed sets and these, and measure these; a picture with values that are not finite is not drawn.

        Messages of the residuals and of their maps, and two collectives for each channel that is drawn.

        Args:
            sets: Samples in physical units, the rows of this rank, by label.
            step: Number of finished steps.

        Returns:
            Root mean square residuals of these sets by norm.
        """
        if not self.fixed:
            self.fix_truths()
        found = {label: self._measured(samples) for label, samples in sets.items()}
        if all(math.isfinite(norms["l2"]) for norms in found.values()):
            shown = self.fixed | {label: self._layers(samples) for label, samples in sets.items()}
            if self.window.first:
                self.board.image(TAG, progress_picture(self.problem.pde, shown), step)
        return found

    def _layers(self, samples: Samples) -> Layers:
        return layers(self.problem.pde, self.window, samples, PICTURED, POINTS)

    def _measured(self, samples: Samples) -> dict[str, float]:
        """Return root mean squares by norm. One all-reduce of 8 bytes a norm."""
        squares = residual_shares(self.problem.pde, self.window, *samples)
        means = self.window.total(torch.stack([squares[norm].double().sum() for norm in NORMS])) / len(samples.fields)
        return dict(zip(NORMS, means.sqrt().tolist(), strict=True))
