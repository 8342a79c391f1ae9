"""The PIDDM objective: match the teacher's endpoint, and obey the equation with the sample itself.

    L = mean |d(eps) - x0|^2 + sum_k lambda_k mean R_k(d(eps))^2 / s_k^2

(Zhang et al., Physics-informed distillation of diffusion models, ICML 2026, eq. 8, with normalised terms.) The terms k
are the interior residual in its l2 and its dual norm, and the boundary. s_k^2 is the mean of R_k^2 over the teacher's own
samples, measured once and frozen, so that lambda is dimensionless and means the same for every equation and grid.

The match may be pseudo-Huber in place of squared: where noise leaves open on which side of a jump a point lies, a squared
match is least at a value between the phases, which no field has; a linear tail keeps to the likelier one.

A regression answers what noise leaves open with something between, which is flatter than any field. The match of powers holds
each channel's mean square to the endpoint's, whatever the places of its features.

The residual may move all channels, or the solution alone: then the inputs, whose law the equation says nothing about,
stay as the teacher drew them, and the solution is drawn to them. Between the two, it may move the shape of the inputs and not
their size: a flatter coefficient has a smaller residual whatever the solution, so that every student would pay with contrast.
Knows no ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from pidscale.config import LambdaSettings
from pidscale.diffusion.normaliser import Normaliser
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Pde, residual_shares, solution_mask

TERMS = ("l2", "dual", "boundary")


@dataclass(frozen=True)
class Physics:
    """Weights lambda_k and scales s_k^2 of the residual's terms, and which channels they may move."""

    pde: Pde
    window: Window
    normaliser: Normaliser
    weights: dict[str, float]
    scales: dict[str, float]
    gradient_to: str = "all"

    def squares(self, x_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Tensor]:
        """Squared relative residuals [B] by term, of fields in the units of the model; the share of the rows at hand."""
        if self.gradient_to != "all":
            moves = _solution(self.pde, self.window, x_BCYX.device)
            inputs = x_BCYX.masked_fill(moves, 0.0)
            held = inputs.detach() if self.gradient_to == "solution" else of_constant_size(inputs, self.window)
            x_BCYX = torch.where(moves, x_BCYX, held)
        return residual_shares(self.pde, self.window, self.normaliser.decode(x_BCYX), params_BP)


@lru_cache(maxsize=8)
def _solution(pde: Pde, window: Window, device: torch.device) -> Tensor:
    return window.crop(solution_mask(pde, window.grid)).to(device)


def of_constant_size(x_BCYX: Tensor, window: Window) -> Tensor:
    """The same fields, but gradients lose their part along each channel of each sample: its root mean square stays."""
    fixed = x_BCYX.detach()
    along, size = window.total(
        torch.stack([(x_BCYX * fixed).sum(dim=(2, 3), keepdim=True), fixed.square().sum(dim=(2, 3), keepdim=True)])
    )
    size = size.clamp_min(torch.finfo(fixed.dtype).tiny)
    return x_BCYX - fixed / size * (along - along.detach())


def active_weights(weights: LambdaSettings, norm: str) -> dict[str, float]:
    """lambda_k by term; a norm that was not chosen has weight zero."""
    chosen = {"l2": weights.l2, "dual": weights.dual, "boundary": weights.boundary}
    return {k: 0.0 if norm in ("l2", "dual") and k in ("l2", "dual") and k != norm else v for k, v in chosen.items()}


def frozen_scales(
    measured: Mapping[str, float], floor: Mapping[str, float], trivial: Mapping[str, float]
) -> dict[str, float]:
    """s_k^2 = max(measured, (10 floor)^2, (0.01 trivial)^2), from mean squares measured on the teacher and root mean
    squares of the truth and of the trivial fields. A term whose trivial score is 0 (the boundary) is held to 1e-4."""
    return {
        k: max(measured[k], (10 * floor.get(k, 0.0)) ** 2, (0.01 * (trivial.get(k, 0.0) or 1.0)) ** 2) for k in TERMS
    }


def mismatch(x_BCYX: Tensor, endpoint_BCYX: Tensor, huber: float = 0.0, points: int | None = None) -> Tensor:
    """Mean squared difference of each sample, [B]; with a width c > 0 pseudo-Huber, 2 c (sqrt(d^2 + c^2) - c) at each point.

    The latter is d^2 far below c and 2 c |d| far above (Charbonnier et al., IEEE Trans. Image Process. 6, 1997).
    points: values of a whole sample, where these are some rows of it: the result is then their share.
    """
    squares = (x_BCYX - endpoint_BCYX).square()
    if huber > 0:
        squares = 2 * huber * squares / ((squares + huber**2).sqrt() + huber)  # the same without cancellation
    return squares.flatten(1).sum(dim=1) / (points or x_BCYX[0].numel())


def power_mismatch(x_BCYX: Tensor, endpoint_BCYX: Tensor, window: Window, sigma_data: float = 0.5) -> Tensor:
    """Squared difference of each sample's mean squares relative to sigma_data^2, mean over channels, [B].

    Each holder of the samples has an equal share of the result.
    """
    difference = window.total((x_BCYX.square() - endpoint_BCYX.square()).sum(dim=(2, 3)))
    relative = difference / (math.prod(window.grid.shape) * sigma_data**2)
    return relative.square().mean(dim=1) / window.holders


def piddm(
    x_BCYX: Tensor,
    endpoint_BCYX: Tensor,
    physics: Physics | None,
    huber: float = 0.0,
    power: float = 0.0,
    params_BP: Tensor | None = None,
    window: Window | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each sample [B] and its parts: `match`, `power`, and the squared relative residual of each term.

    physics None is the lambda = 0 twin: distillation alone. huber: width of `mismatch`. power: weight of `power_mismatch`.
    params: of each sample, where the equation has some that vary. window: of the rows at hand, where these are not all: each
    part is then a share, and those of all holders add up.
    """
    window = window or Window(Grid((x_BCYX.shape[2], x_BCYX.shape[3])))
    match = mismatch(x_BCYX, endpoint_BCYX, huber, x_BCYX.shape[1] * math.prod(window.grid.shape))
    parts, loss = {"match": match}, match
    if power > 0:
        parts["power"] = power_mismatch(x_BCYX, endpoint_BCYX, window)
        loss = loss + power * parts["power"]
    if physics is None:
        return loss, parts
    squares = physics.squares(x_BCYX, params_BP)
    for name, weight in physics.weights.items():
        if weight > 0:
            loss = loss + weight / physics.scales[name] * squares[name]
    return loss, parts | squares
