"""Distribution matching: samples move from where they are too many to where the teacher has more. Knows no ranks.

    direction = (D_critic(x_t, sigma) - D_teacher(x_t, sigma)) / mean |x - D_teacher(x_t, sigma)|,   x_t = x + sigma eps'

is the difference of the scores of the student's law and of the teacher's, and the loss 1/2 |x - stopgrad(x - direction)|^2
has it as its gradient (Yin et al., One-step diffusion with distribution matching distillation, CVPR 2024, eq. 7 and 8). The
critic is a second denoiser that learns on the student's own samples, a step for each of the student's. A match with the
teacher's endpoints, of weight `match`, keeps all modes (eq. 9). What a regression blurs, because noise leaves it open, this
one may decide; the residual of the sample is added as for every objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.diffusion.objective import denoising_errors
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, Partner, Targets, mismatch
from pidscale.meter import StepTimer

LOWEST = 0.02  # below, noisy samples say nothing of their law that they do not say themselves


@dataclass(frozen=True)
class DmdSettings(DistanceSettings):
    """The section distill.objective of distribution matching; huber and distance are of the match with endpoints.

    Attributes:
        name: `dm`.
        match: Weight of the match with endpoints beside it; 0: without any, and without endpoints.
    """

    name: str = "dm"
    match: float = setting(4.0, at_least=0)


@dataclass(frozen=True)
class Matching(Objective[DmdSettings]):
    """Match the teacher's distribution.

    Parts: `score`, the squared difference of the two denoised fields, `match` where it has a weight, the residual's terms,
    and the critic's loss.
    """

    settings_class = DmdSettings

    @classmethod
    def targets(cls, own: DmdSettings) -> Targets:
        """Return that batches hold endpoints where the match with them has a weight."""
        return Targets.ENDPOINTS if own.match > 0 else Targets.NONE

    @classmethod
    def partners(cls, own: DmdSettings) -> tuple[Partner, ...]:
        """Return the critic."""
        return (Partner("critic"),)

    def noised(self, x_BCYX: Tensor, batch: Batch, stream: str) -> tuple[Tensor, Tensor]:
        """Draw levels and noise of a stream, new ones at every step.

        Args:
            x_BCYX: The samples to be made noisy.
            batch: What they were made from.
            stream: The name of the stream.

        Returns:
            Levels [B], and standard normal noise of the shape of the samples.
        """
        shape = (x_BCYX.shape[1], *self.window.grid.shape)
        normal = seeds.normal(self.seed, f"{stream} level", batch.fresh, (1, 1, 1), device=x_BCYX.device).flatten()
        sigma = self.teacher.noise.training_level(normal).clamp(LOWEST, self.teacher.noise.sigma_max)
        return sigma, seeds.normal(self.seed, stream, batch.fresh, shape, self.window.rows, device=x_BCYX.device)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss of one student call, one of the teacher and one of the critic, the latter two without gradient."""
        own = self.own
        with timer.section("student"):
            x = self.sample(network, batch.eps_BCYX, batch.condition_BP)
        with timer.section("score"), torch.no_grad():
            sigma, eps = self.noised(x, batch, "distill/score")
            noisy = x + sigma.reshape(-1, 1, 1, 1) * eps
            nets = self.teacher.denoiser, self.networks["critic"]
            real, fake = (conditioned(net, batch.condition_BP)(noisy, sigma) for net in nets)
            size = self.window.total((x - real).abs().flatten(1).sum(dim=1)) / self.points
            direction = (fake - real) / size.clamp_min(1e-6).reshape(-1, 1, 1, 1)
        with timer.section("residual"):
            loss = 0.5 * mismatch(x, (x - direction).detach(), points=self.points)
            parts = {"score": mismatch(real, fake, points=self.points)}
            if batch.target_BCYX is not None:
                parts["match"] = mismatch(x, batch.target_BCYX, own.huber, self.points, own.distance)
                loss = loss + own.match * parts["match"]
            return self.penalised(loss, parts, x, batch)

    def partner_losses(self, name: str, x_BCYX: Tensor, batch: Batch) -> Tensor:
        """Return the critic's denoising loss [B] on samples of the student."""
        sigma, eps = self.noised(x_BCYX, batch, "distill/critic")
        critic = conditioned(self.networks[name], batch.condition_BP)
        return denoising_errors(critic, self.teacher.noise, x_BCYX.detach(), sigma, eps, self.points)
