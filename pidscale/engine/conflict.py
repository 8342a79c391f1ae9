"""The gradients of two losses, combined without conflict: the step serves both. Knows no equations and no files.

    g = (|g1| + |g2|) / 2  (g1 / |g1| + g2 / |g2|)

This is ConFIG (Liu, Chu and Thuerey, ConFIG: towards conflict-free training of physics informed neural networks, ICLR 2025,
eq. 4) for two losses: its direction, the sum of the unit vectors of what each gradient has across the other, is that of the
bisector, and its length the sum of the projections onto it. The direction has the same angle with both gradients, at most a
right one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pidscale.parallel.mesh import Mesh


def factors(first: float, second: float) -> tuple[float, float]:
    """Return the factors of two gradients in their combination.

    Args:
        first: Norm of the first gradient.
        second: Norm of the second gradient.

    Returns:
        Two factors; both 1 if a norm is 0 or not finite, so that the combination is the sum.
    """
    if not (math.isfinite(first + second) and min(first, second) > 0):
        return 1.0, 1.0
    half = (first + second) / 2
    return half / first, half / second


class PartGradients:
    """The gradients of the two parts of a loss over the micro-steps of a step, each with a backward pass of its own.

    The losses come from `engine.module`: DeepSpeed refuses further backward passes through its own forward pass.

    Args:
        engine: The network, with `module` and `backward` as `Zero` has them. Below stage 3 each rank has all of its weights.
        mesh: The mesh of ranks.
        accumulation: Number of micro-steps of a step.
    """

    def __init__(self, engine: Any, mesh: Mesh, accumulation: int) -> None:
        self._engine = engine
        self._mesh = mesh
        self._left = accumulation
        self._weights = [weight for weight in engine.module.parameters() if weight.requires_grad]
        self._sums = [[torch.zeros_like(weight) for weight in self._weights] for _ in range(2)]

    def backward(self, shares: Tensor) -> None:
        """Add a micro-step; with the last one of a step, give the engine the combined gradient. All ranks call it.

        Args:
            shares: This micro-step's shares of both parts of the loss of the global batch, [2].
        """
        for number, (share, sums) in enumerate(zip(shares, self._sums, strict=True)):
            found = torch.autograd.grad(share, self._weights, retain_graph=number == 0, allow_unused=True)
            for total, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    total += gradient
        self._left -= 1
        scale = self._factors() if self._left == 0 else (0.0, 0.0)
        terms = [
            (weight * (scale[0] * one + scale[1] * other)).sum()
            for weight, one, other in zip(self._weights, *self._sums, strict=True)
        ]
        self._engine.backward(torch.stack(terms).sum())  # whose gradient is the combination

    def _factors(self) -> tuple[float, float]:
        """Return the factors of this rank's shares of the two gradients. One all-reduce for each."""
        norms = []
        for sums in self._sums:
            whole = self._mesh.sum(torch.cat([one.flatten() for one in sums]))
            norms.append(float(whole.double().norm()))
        return factors(*norms)
