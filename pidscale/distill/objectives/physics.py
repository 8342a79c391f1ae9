"""The residual term of every objective: its terms, their weights, and the channels that they may change. Knows no ranks.

The terms k are the interior residual in its l2 and its dual norm, and the residual on the boundary; optionally also the
budgets (`conservation`) and the first time interval (`initial`). The scale s_k^2 is the mean of R_k^2 over samples of the
teacher, bounded below by the floor of the truths and by a null solution (`frozen_scales`). It is measured once and then
fixed, so that lambda_k is dimensionless and comparable between equations. On fine grids lambda_k grows (`weights_on`).

The gradient of the residual may change all channels, or the solution alone. In the second case it does not change the inputs,
whose distribution the equation does not determine; the solution is adapted to them. A third option changes the shape of the
inputs but not their magnitude. Otherwise students reduce the residual by lowering the contrast, because a flatter coefficient
has a smaller residual for any solution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.caller import kept
from pidscale.config import DistillSettings
from pidscale.diffusion.normaliser import Normaliser
from pidscale.ops.grid import Grid
from pidscale.ops.window import Window
from pidscale.pde.base import Pde, solution_mask
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import EXTRA_MEASURES, MEASURES

REFERENCE = 32  # points a side of the grids that weights were chosen on
GROWTH = {"l2": 6, "dual": 4, "boundary": 2}  # exponents of the weights on finer grids of nodes


@dataclass(frozen=True)
class Physics:
    """The residual term of a loss.

    Attributes:
        pde: The equation.
        window: Rows of this rank.
        normaliser: Conversion between units of the model and physical units.
        weights: Weight lambda_k of each term, by name.
        scales: Scale s_k^2 of each term, by name.
        gradient_to: Fields that the gradient of the residual changes: `solution`, `shape` or `all`.
    """

    pde: Pde
    window: Window
    normaliser: Normaliser
    weights: dict[str, float]
    scales: dict[str, float]
    gradient_to: str = "all"

    def squares(self, x_BCYX: Tensor, params_BP: Tensor | None = None) -> dict[str, Tensor]:
        """Return the squared relative residuals of fields.

        Args:
            x_BCYX: Fields in units of the model, restricted to the rows of this rank.
            params_BP: Parameters that vary from sample to sample.

        Returns:
            Squared residuals [B] by term; each is the share of the rows of this rank.
        """
        if self.gradient_to != "all":
            moves = _solution(self.pde, self.window, x_BCYX.device)
            inputs = x_BCYX.masked_fill(moves, 0.0)
            held = inputs.detach() if self.gradient_to == "solution" else of_constant_size(inputs, self.window)
            x_BCYX = torch.where(moves, x_BCYX, held)
        extra = extra_measures(self.weights)
        return residual_shares(self.pde, self.window, self.normaliser.decode(x_BCYX), params_BP, extra)

    def penalty(self, squares: Mapping[str, Tensor]) -> Tensor:
        """Return sum_k lambda_k R_k^2 / s_k^2 of each sample, [B]."""
        terms = [w / self.scales[name] * squares[name] for name, w in self.weights.items() if w > 0]
        return torch.stack(terms).sum(dim=0) if terms else torch.zeros_like(squares["l2"])


@kept(8)
def _solution(pde: Pde, window: Window, device: torch.device) -> Tensor:
    return window.crop(solution_mask(pde, window.grid)).to(device)


def of_constant_size(x_BCYX: Tensor, window: Window) -> Tensor:
    """Return the fields unchanged, but remove the gradient component parallel to each channel in the backward pass.

    A gradient step then leaves the root mean square of each channel of each sample constant to first order.
    """
    fixed = x_BCYX.detach()
    along, size = window.total(
        torch.stack([(x_BCYX * fixed).sum(dim=(2, 3), keepdim=True), fixed.square().sum(dim=(2, 3), keepdim=True)])
    )
    size = size.clamp_min(torch.finfo(fixed.dtype).tiny)
    return x_BCYX - fixed / size * (along - along.detach())


def active_weights(settings: DistillSettings) -> dict[str, float]:
    """Return lambda_k by term: `weights` times `physics_weight`, and zero for a norm that `norm` does not select."""
    unchosen = {"l2": "dual", "dual": "l2"}.get(settings.norm)
    times = settings.physics_weight
    return {k: 0.0 if k == unchosen else times * getattr(settings.weights, k) for k in MEASURES}


def weights_on(settings: DistillSettings, grid: Grid) -> dict[str, float]:
    """Return lambda_k by term: those of `active_weights`, larger on nodes of which there are more than REFERENCE a side.

    A teacher leaves noise in the solution. For noise of a given size R_k^2 grows with the fourth power of the number of
    points a side in the l2 norm of a second-order operator, and with the second in its dual norm. So does s_k^2, by which
    R_k^2 is divided: with equal weights a fine grid would weigh the residual less. The exponents take this back, and add 2.

    Args:
        settings: Settings of the section `distill`.
        grid: Grid of the fields.

    Returns:
        Weights by term.
    """
    finer = math.sqrt(math.prod(grid.shape)) / REFERENCE if grid.kind == "node" else 1.0
    return {k: weight * max(1.0, finer) ** GROWTH.get(k, 0) for k, weight in active_weights(settings).items()}


def extra_measures(weights: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of the extra measures with a weight above zero."""
    return tuple(name for name in EXTRA_MEASURES if weights.get(name, 0.0) > 0)


def frozen_scales(
    measured: Mapping[str, float], floor: Mapping[str, float], trivial: Mapping[str, float]
) -> dict[str, float]:
    """Return s_k^2 = max(measured, (10 floor)^2, (0.01 trivial)^2) by term.

    Args:
        measured: Mean squared residuals of the teacher's samples.
        floor: Root mean square residuals of the truths.
        trivial: Root mean square residuals of the trivial fields; a value of 0, as for the boundary, is replaced by 1.

    Returns:
        Scales s_k^2 by term.
    """
    return {
        k: max(measured[k], (10 * floor.get(k, 0.0)) ** 2, (0.01 * (trivial.get(k, 0.0) or 1.0)) ** 2) for k in measured
    }
