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

from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, Targets, mismatch
from pidscale.meter import StepTimer
from pidscale.ops.window import Window


@dataclass(frozen=True)
class PiddmSettings(DistanceSettings):
    """The section distill.objective of PIDDM.

    Attributes:
        name: `piddm`.
        power: Weight of the match of each channel's mean square, beside that of its points.
    """

    name: str = "piddm"
    power: float = setting(0.03, at_least=0)


def power_mismatch(x_BCYX: Tensor, endpoint_BCYX: Tensor, window: Window, sigma_data: float = 0.5) -> Tensor:
    """Return the squared difference of each sample's mean squares relative to sigma_data^2, mean over channels.

    Args:
        x_BCYX: Fields in the units of the model, the rows at hand.
        endpoint_BCYX: What they are compared with.
        window: The rows at hand.
        sigma_data: The standard deviation of data in the units of the model.

    Returns:
        Differences [B]; each holder of the samples has an equal share of them.
    """
    difference = window.total((x_BCYX.square() - endpoint_BCYX.square()).sum(dim=(2, 3)))
    relative = difference / (math.prod(window.grid.shape) * sigma_data**2)
    return relative.square().mean(dim=1) / window.holders


@dataclass(frozen=True)
class Piddm(Objective[PiddmSettings]):
    """Match the endpoints. Parts: `match`, `power` where it has a weight, and the residual's terms."""

    settings_class = PiddmSettings

    @classmethod
    def targets(cls, own: PiddmSettings) -> Targets:
        """Return that batches hold endpoints."""
        return Targets.ENDPOINTS

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss of one student call, and the residual of what it made."""
        with timer.section("student"):
            x = self.sample(network, batch.eps_BCYX, batch.condition_BP)
        with timer.section("residual"):
            return self.compared(x, batch)

    def compared(self, x_BCYX: Tensor, batch: Batch) -> Learned:
        """Return the loss of samples beside the endpoints of their noise."""
        own = self.own
        target = batch.target_BCYX
        assert target is not None
        match = mismatch(x_BCYX, target, own.huber, self.points, own.distance)
        parts = {"match": match}
        loss = match
        if own.power > 0:
            parts["power"] = power_mismatch(x_BCYX, target, self.window)
            loss = loss + own.power * parts["power"]
        return self.penalised(loss, parts, x_BCYX, batch)
