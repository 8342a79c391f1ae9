"""The PIDDM objective: match the teacher's endpoint, and obey the equation with the sample itself. Knows no ranks.

    L = mean |d(eps) - x0|^2 + sum_k lambda_k mean R_k(d(eps))^2 / s_k^2

(Zhang et al., Physics-informed distillation of diffusion models, ICML 2026, eq. 8, with normalised terms.)

A regression answers what noise leaves open with something between, which is flatter than any field. The match of powers holds
each channel's mean square to the endpoint's, whatever the places of its features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from pidscale.diffusion.denoiser import ConditionalDenoiser
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import Learned, Objective, mismatch
from pidscale.meter import StepTimer
from pidscale.ops.window import Window


def power_mismatch(x_BCYX: Tensor, endpoint_BCYX: Tensor, window: Window, sigma_data: float = 0.5) -> Tensor:
    """Squared difference of each sample's mean squares relative to sigma_data^2, mean over channels, [B].

    Each holder of the samples has an equal share of the result.
    """
    difference = window.total((x_BCYX.square() - endpoint_BCYX.square()).sum(dim=(2, 3)))
    relative = difference / (math.prod(window.grid.shape) * sigma_data**2)
    return relative.square().mean(dim=1) / window.holders


@dataclass(frozen=True)
class Piddm(Objective):
    """Parts: `match`, `power` where it has a weight, and the residual's terms."""

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """One student call, and the residual of what it made."""
        with timer.section("student"):
            x = self.sample(network, batch.eps_BCYX, batch.condition_BP)
        with timer.section("residual"):
            return self.compared(x, batch)

    def compared(self, x_BCYX: Tensor, batch: Batch) -> Learned:
        """The loss of samples beside the endpoints of their noise."""
        d, target = self.settings, batch.target_BCYX
        assert target is not None
        match = mismatch(x_BCYX, target, d.huber, self.points, d.distance)
        parts, loss = {"match": match}, match
        if d.power > 0:
            parts["power"] = power_mismatch(x_BCYX, target, self.window)
            loss = loss + d.power * parts["power"]
        return self.penalised(loss, parts, x_BCYX, batch)
