"""A term of a residual, and what is measured of it besides its mean square: conservation and the first interval of time.

Knows no equation and no ranks. Shapes: values [B, ..., y, X] in space, [B, F, ..., y, X] at F intervals of time, or on a
strip [B, t, X], whose rows are intervals of time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from pidscale.ops.window import Window

NORMS = ("l2", "dual", "boundary")
"""Norms that the residual of every equation has: two of its interior term, one of its boundary term."""


@dataclass(frozen=True)
class Term:
    """One term of a residual.

    Attributes:
        values: Values of the rows at hand [B, ...].
        scale: What the values are relative to; the same for all samples, so that no generated sample can change it.
        points: Number of values of a sample in the whole field; None where all of them are at hand.
        intervals: Number of intervals of time in the whole field, along dim 1; 0 for a steady equation.
    """

    values: Tensor
    scale: float
    points: int | None = None
    intervals: int = 0

    @property
    def count(self) -> int:
        """Number of values of a sample in the whole field."""
        return self.values[0].numel() if self.points is None else self.points

    def share(self) -> Tensor:
        """Return the share of the rows at hand in the mean square of each sample, relative to the squared scale, [B]."""
        return self.values.square().flatten(1).sum(dim=1) / (self.count * self.scale**2)

    def absolute_share(self) -> Tensor:
        """Return the share of the rows at hand in the mean absolute value of each sample, relative to the scale, [B]."""
        return self.values.abs().flatten(1).sum(dim=1) / (self.count * self.scale)

    def conservation(self, window: Window) -> Tensor:
        """Return the squared mean over space, averaged over times and species: how much a conserved quantity is violated.

        A dual norm that leaves out the mean, as on periodic grids, is blind to it; in a mean square it hardly counts.

        Args:
            window: The window that the term was taken on. One sum over all ranks that share the field, except on a strip.

        Returns:
            Share of this window, relative to the squared scale, [B].
        """
        values = self.values
        if window.grid.kind == "strip":
            means = values.mean(dim=-1)
            return means.square().flatten(1).sum(dim=1) / (self.count / values.shape[-1] * self.scale**2)
        space = self.count / math.prod(values.shape[1:-2])
        means = window.total(values.sum(dim=(-2, -1))) / space
        return means.square().reshape(len(values), -1).mean(dim=1) / (window.holders * self.scale**2)

    def initial(self, window: Window) -> Tensor:
        """Return the mean square over the first interval of time, the step away from the initial state.

        Args:
            window: The window that the term was taken on.

        Returns:
            Share of this window, relative to the squared scale, [B].
        """
        if window.grid.kind == "strip" and not window.first:
            return torch.zeros_like(self.values[:, 0, 0])
        first = self.values[:, 0].square().flatten(1).sum(dim=1)
        return first / (self.count / self.intervals * self.scale**2)


EXTRA_MEASURES: MappingProxyType[str, Callable[[Term, Window], Tensor]] = MappingProxyType(
    {"conservation": Term.conservation, "initial": Term.initial}
)
"""Further measures of the interior term, which are computed on request."""

MEASURES = (*NORMS, *EXTRA_MEASURES)
"""Names of everything that can be measured of a residual."""
