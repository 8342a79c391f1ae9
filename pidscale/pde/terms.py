"""One term of a residual, and what is measured of it beside its mean square: its budgets, and the first interval of time.

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
"""Names of the norms that every equation's residual has: two of its interior term, one of its boundary term."""


@dataclass(frozen=True)
class Term:
    """One term of a residual: values [B, ...], of the rows at hand, and its scale, which no generated sample can move.

    points: values of a sample in the whole field; those at hand are all of them if None. intervals: of time, in the whole
    field, along axis 1; 0 of a steady equation.
    """

    values: Tensor
    scale: float
    points: int | None = None
    intervals: int = 0

    @property
    def count(self) -> int:
        """Values of a sample in the whole field."""
        return self.values[0].numel() if self.points is None else self.points

    def share(self) -> Tensor:
        """The mean square of a sample [B] relative to the squared scale, as far as its values are at hand."""
        return self.values.square().flatten(1).sum(dim=1) / (self.count * self.scale**2)

    def conservation(self, window: Window) -> Tensor:
        """The squared mean over space, which is what a budget lacks, mean over times and species; [B], this holder's share.

        A dual norm that leaves out the constant, as on periodic grids, does not see it; a mean square hardly does.
        """
        values = self.values
        if window.grid.kind == "strip":
            budgets = values.mean(dim=-1)
            return budgets.square().flatten(1).sum(dim=1) / (self.count / values.shape[-1] * self.scale**2)
        space = self.count / math.prod(values.shape[1:-2])
        budgets = window.total(values.sum(dim=(-2, -1))) / space
        return budgets.square().reshape(len(values), -1).mean(dim=1) / (window.holders * self.scale**2)

    def initial(self, window: Window) -> Tensor:
        """The mean square over the first interval of time, [B], this holder's share: the step away from the initial state."""
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
