"""The residual's part of every objective: which terms, how they are weighed, which channels they may move. Knows no ranks.

The terms k are the interior residual in its l2 and its dual norm, and the boundary; on request its budgets (`conservation`)
and its first interval of time (`initial`). s_k^2 is the mean of R_k^2 over the teacher's own samples, bounded below by the
truths' floor and by a null solution (`frozen_scales`). It is measured once and frozen, so that lambda is dimensionless and
means the same for every equation and grid.

The residual may move all channels, or the solution alone: then the inputs, whose law the equation says nothing about,
stay as the teacher drew them, and the solution is drawn to them. Between the two, it may move the shape of the inputs and not
their size: a flatter coefficient has a smaller residual whatever the solution, so that every student would pay with contrast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.caller import kept
from pidscale.config import DistillSettings
from pidscale.diffusion.normaliser import Normaliser
from pidscale.ops.window import Window
from pidscale.pde.base import Pde, solution_mask
from pidscale.pde.residuals import residual_shares
from pidscale.pde.terms import EXTRA_MEASURES, MEASURES


@dataclass(frozen=True)
class Physics:
    """The residual's part of a loss.

    Attributes:
        pde: The equation.
        window: The rows of this rank.
        normaliser: Units of the model.
        weights: lambda_k by term.
        scales: s_k^2 by term.
        gradient_to: What the residual may move: `solution`, `shape` or `all`.
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
            x_BCYX: Fields in units of the model, the rows at hand.
            params_BP: Parameters that vary from sample to sample.

        Returns:
            Squares [B] by term, the share of the rows at hand.
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
    """Return the same fields, whose gradients have no part along each channel of each sample: its root mean square stays."""
    fixed = x_BCYX.detach()
    along, size = window.total(
        torch.stack([(x_BCYX * fixed).sum(dim=(2, 3), keepdim=True), fixed.square().sum(dim=(2, 3), keepdim=True)])
    )
    size = size.clamp_min(torch.finfo(fixed.dtype).tiny)
    return x_BCYX - fixed / size * (along - along.detach())


def active_weights(settings: DistillSettings) -> dict[str, float]:
    """Return lambda_k by term, `physics_weight` times what is set; a norm that was not chosen has weight zero."""
    unchosen = {"l2": "dual", "dual": "l2"}.get(settings.norm)
    times = settings.physics_weight
    return {k: 0.0 if k == unchosen else times * getattr(settings.weights, k) for k in MEASURES}


def extra_measures(weights: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of the extra measures that have a weight."""
    return tuple(name for name in EXTRA_MEASURES if weights.get(name, 0.0) > 0)


def frozen_scales(
    measured: Mapping[str, float], floor: Mapping[str, float], trivial: Mapping[str, float]
) -> dict[str, float]:
    """Return s_k^2 = max(measured, (10 floor)^2, (0.01 trivial)^2) by term.

    Args:
        measured: Mean squares of the teacher's samples.
        floor: Root mean squares of the truth.
        trivial: Root mean squares of the trivial fields; 0, as of the boundary, counts as 1.

    Returns:
        The scales.
    """
    return {
        k: max(measured[k], (10 * floor.get(k, 0.0)) ** 2, (0.01 * (trivial.get(k, 0.0) or 1.0)) ** 2) for k in measured
    }
