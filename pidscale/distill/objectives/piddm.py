"""The PIDDM objective: regression on the teacher's endpoints, plus the residual of the samples. Knows no ranks.

    L = mean |d(eps) - x0|^2 + sum_k lambda_k mean R_k(d(eps))^2 / s_k^2

(Zhang et al., Physics-informed distillation of diffusion models, ICML 2026, eq. 8, with normalised terms.)

Where the noise does not determine the field, regression predicts the mean, which is smoother than any sample. The power match
compares the mean square of each channel with that of the endpoint, independently of the positions of features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, Targets, mismatch
from pidscale.meter import StepTimer
from pidscale.ops.window import Window
from pidscale.pde.constraints import STEPS


@dataclass(frozen=True)
class PiddmSettings(DistanceSettings):
    """Settings `distill.objective` of PIDDM.

    Attributes:
        name: `piddm`.
        power: Weight of the power match, relative to the pointwise match.
    """

    name: str = "piddm"
    power: float = setting(0.03, at_least=0)


def power_mismatch(x_BCYX: Tensor, endpoint_BCYX: Tensor, window: Window, sigma_data: float = 0.5) -> Tensor:
    """Return the squared difference between the channel mean squares of field and endpoint, averaged over channels.

    Mean squares are relative to sigma_data^2.

    Args:
        x_BCYX: Fields in units of the model, restricted to the rows of this rank.
        endpoint_BCYX: Endpoints in units of the model, restricted to the same rows.
        window: Rows of this rank.
        sigma_data: Standard deviation of the data in units of the model.

    Returns:
        Squared differences [B], divided by the number of ranks that share the samples.
    """
    difference = window.total((x_BCYX.square() - endpoint_BCYX.square()).sum(dim=(2, 3)))
    relative = difference / (math.prod(window.grid.shape) * sigma_data**2)
    return relative.square().mean(dim=1) / window.holders


@dataclass(frozen=True)
class Piddm(Objective[PiddmSettings]):
    """PIDDM objective. Parts of the loss: `match`, `power` if it has a weight, and the terms of the residual."""

    settings_class = PiddmSettings

    @classmethod
    def targets(cls, own: PiddmSettings) -> Targets:
        """Return `ENDPOINTS`."""
        return Targets.ENDPOINTS

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss from one student call, including the residual of its samples."""
        with timer.section("student"):
            made = self.called(network, batch.eps_BCYX, batch.condition_BP)
            x = self.finished(made, batch.condition_BP)
        with timer.section("residual"):
            return self.compared(x, batch, self.matched(made, x))

    def matched(self, made_BCYX: Tensor, x_BCYX: Tensor) -> Tensor:
        """Return what is compared with the endpoints: the sample, but inputs as the network made them if a step follows.

        A comparison behind the step would have no gradient where the phase is right.

        Args:
            made_BCYX: Fields of the network.
            x_BCYX: The samples.

        Returns:
            Fields [B, C, y, X].
        """
        if not (set(STEPS) & set(self.settings.constraints) and self.settings.trained_head):
            return x_BCYX
        solution = torch.tensor([channel.role == "solution" for channel in self.teacher.pde.channels])
        return torch.where(solution.to(x_BCYX.device)[:, None, None], x_BCYX, made_BCYX)

    def compared(self, x_BCYX: Tensor, batch: Batch, matched_BCYX: Tensor | None = None) -> Learned:
        """Return the loss of samples, or of `matched_BCYX` in their place, compared with the endpoints of the same noise."""
        own = self.own
        target = batch.target_BCYX
        assert target is not None
        compared = x_BCYX if matched_BCYX is None else matched_BCYX
        match = mismatch(compared, target, own.huber, self.points, own.distance)
        parts = {"match": match}
        loss = match
        if own.power > 0:
            parts["power"] = power_mismatch(compared, target, self.window)
            loss = loss + own.power * parts["power"]
        return self.penalised(loss, parts, x_BCYX, batch)
