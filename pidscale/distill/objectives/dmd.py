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
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.diffusion.objective import denoising_errors
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import Learned, Objective, mismatch
from pidscale.meter import StepTimer

LOWEST = 0.02  # below, noisy samples say nothing of their law that they do not say themselves


@dataclass(frozen=True)
class Matching(Objective):
    """Parts: `score`, the squared difference of the two denoised fields, `match` where it has a weight, the residual's terms.

    seed: of the run. critic: the second denoiser, of this student alone.
    """

    seed: int = 0
    critic: ConditionalDenoiser | None = None

    def noised(self, x_BCYX: Tensor, batch: Batch, stream: str) -> tuple[Tensor, Tensor]:
        """Levels [B] and noise of a stream, drawn anew at every step."""
        shape = (x_BCYX.shape[1], *self.window.grid.shape)
        normal = seeds.normal(self.seed, f"{stream} level", batch.fresh, (1, 1, 1), device=x_BCYX.device).flatten()
        sigma = self.teacher.noise.training_level(normal).clamp(LOWEST, self.teacher.noise.sigma_max)
        return sigma, seeds.normal(self.seed, stream, batch.fresh, shape, self.window.rows, device=x_BCYX.device)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """One student call, one of the teacher and one of the critic, the latter two without gradient."""
        d, assured = self.settings, self.critic
        assert assured is not None
        with timer.section("student"):
            x = self.sample(network, batch.eps_BCYX, batch.condition_BP)
        with timer.section("score"), torch.no_grad():
            sigma, eps = self.noised(x, batch, "distill/score")
            noisy = x + sigma.reshape(-1, 1, 1, 1) * eps
            nets = self.teacher.denoiser, assured
            real, fake = (conditioned(net, batch.condition_BP)(noisy, sigma) for net in nets)
            size = self.window.total((x - real).abs().flatten(1).sum(dim=1)) / self.points
            direction = (fake - real) / size.clamp_min(1e-6).reshape(-1, 1, 1, 1)
        with timer.section("residual"):
            loss = 0.5 * mismatch(x, (x - direction).detach(), points=self.points)
            parts = {"score": mismatch(real, fake, points=self.points)}
            if batch.target_BCYX is not None:
                parts["match"] = mismatch(x, batch.target_BCYX, d.huber, self.points, d.distance)
                loss = loss + d.match * parts["match"]
            return self.penalised(loss, parts, x, batch)

    def critic_losses(self, x_BCYX: Tensor, batch: Batch) -> Tensor:
        """The critic's denoising loss [B] on samples of the student."""
        assert self.critic is not None
        sigma, eps = self.noised(x_BCYX, batch, "distill/critic")
        critic = conditioned(self.critic, batch.condition_BP)
        return denoising_errors(critic, self.teacher.noise, x_BCYX.detach(), sigma, eps, self.points)
