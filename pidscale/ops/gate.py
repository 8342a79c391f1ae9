"""Gradients for the samples that keep a result, and for no others. Knows no equations and no ranks."""

from __future__ import annotations

import torch
from torch import Tensor


class Gate:
    """Lets the gradient of a result reach the samples that keep it; which these are is decided after the result is known.

    Where a discarded result overflows, 0 times infinity would otherwise make the gradient of its sample NaN.

    Attributes:
        passes_B: Samples that keep the result, bool; set before gradients are taken.
    """

    passes_B: Tensor

    def __call__(self, entry_B: Tensor) -> Tensor:
        """Return what a result is computed from, with the same values."""
        if entry_B.requires_grad:
            entry_B = entry_B.view_as(entry_B)
            entry_B.register_hook(self._passed)
        return entry_B

    def _passed(self, gradient_B: Tensor | None) -> Tensor | None:  # None: of an entry that reaches no result
        return None if gradient_B is None else pick(self.passes_B, gradient_B, torch.zeros_like(gradient_B))


def pick(which_B: Tensor, new_B: Tensor, own_B: Tensor) -> Tensor:
    """Return some samples of one tensor and the others of another, [B, ...]."""
    return torch.where(which_B.reshape(-1, *[1] * (own_B.ndim - 1)), new_B, own_B)
