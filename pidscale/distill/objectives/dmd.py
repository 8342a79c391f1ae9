"""Distribution matching: moves student samples toward regions where the teacher's density is higher. Knows no ranks.

    direction = (D_critic(x_t, sigma) - D_teacher(x_t, sigma)) / mean |x - D_teacher(x_t, sigma)|,   x_t = x + sigma eps'

is proportional to the difference between the scores of the two distributions, student and teacher, and is the gradient of
the loss 1/2 |x - stopgrad(x - direction)|^2 (Yin et al., One-step diffusion with distribution matching distillation, CVPR
2024, eq. 7 and 8). The critic is a second denoiser, trained on the student's samples with one step per step of the student.
A regression on the teacher's endpoints with weight `match` keeps all modes (eq. 9). Unlike regression,
distribution matching need not average over outcomes that the noise does not determine. The residual of the samples is added
as for every objective.

With `call_levels`, one student serves one call and several: each step makes its samples by a random number of calls, the same
for all of them, with noise added in between, and the gradient goes through the last call (as Phys-Instruct unrolls its
student, 2026; Yin et al., Improved distribution matching distillation, NeurIPS 2024, section 4.5, without gradients through
earlier calls). Endpoints are compared with samples of one call only, since later ones depend on the added noise too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale import seeds
from pidscale.config import UserError
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.diffusion.objective import denoising_errors
from pidscale.diffusion.solvers import one_step, renoised
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, Partner, Targets, mismatch
from pidscale.meter import StepTimer
from pidscale.setting import setting

LOWEST = 0.02  # lowest noise level: below it the added noise carries no extra information on the distribution


@dataclass(frozen=True)
class DmdSettings(DistanceSettings):
    """Settings `distill.objective` of distribution matching; huber and distance apply to the regression on endpoints.

    Attributes:
        name: `dm`.
        match: Weight of the regression on endpoints; 0: no regression, and no endpoints are made.
        call_levels: Falling noise levels of further calls of the student; empty: it is trained for one call.
    """

    name: str = "dm"
    match: float = setting(4.0, at_least=0)
    call_levels: list[float] = setting([], above=0, distinct=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.call_levels != sorted(self.call_levels, reverse=True):
            raise UserError(f"distill.objective.call_levels={self.call_levels}: expected falling levels")


@dataclass(frozen=True)
class Matching(Objective[DmdSettings]):
    """Distribution matching objective.

    Parts of the loss: `score`, the squared difference between the two denoised fields; `match` if it has a weight; the terms
    of the residual; and the loss of the critic.
    """

    settings_class = DmdSettings

    @classmethod
    def targets(cls, own: DmdSettings) -> Targets:
        """Return `ENDPOINTS` if the regression on endpoints has a weight."""
        return Targets.ENDPOINTS if own.match > 0 else Targets.NONE

    @classmethod
    def partners(cls, own: DmdSettings) -> tuple[Partner, ...]:
        """Return the critic."""
        return (Partner("critic"),)

    @property
    def call_levels(self) -> tuple[float, ...]:
        """Those of the settings."""
        return tuple(self.own.call_levels)

    def calls(self, step: int) -> int:
        """Return the number of calls that a step makes its samples by, drawn uniformly."""
        uniform = float(seeds.uniform(self.seed, "distill/calls", [step], 1)[0, 0])
        return 1 + min(len(self.call_levels), int(uniform * (1 + len(self.call_levels))))

    def made(self, network: ConditionalDenoiser, batch: Batch, calls: int) -> Tensor:
        """Return samples of so many calls, of which the last one has gradients."""
        if calls == 1:
            return self.sample(network, batch.eps_BCYX, batch.condition_BP)
        denoiser = conditioned(network, batch.condition_BP)
        shape = (batch.eps_BCYX.shape[1], *self.window.grid.shape)
        x = batch.eps_BCYX
        for number, level in enumerate((self.teacher.noise.sigma_max, *self.call_levels[1 - calls :])):
            with torch.set_grad_enabled(number == calls - 1):
                if number == 0:
                    x = one_step(denoiser, x, level)
                    continue
                stream = f"distill/again {number}"
                eps = seeds.normal(self.seed, stream, batch.fresh, shape, self.window.rows, device=x.device)
                x = renoised(denoiser, x, eps, level)
        return self.finished(x, batch.condition_BP)

    def noised(self, x_BCYX: Tensor, batch: Batch, stream: str) -> tuple[Tensor, Tensor]:
        """Draw noise levels and noise from a random stream; both are drawn again at every step.

        Args:
            x_BCYX: Samples that the noise will be added to.
            batch: Batch that the samples were generated from.
            stream: Name of the random stream.

        Returns:
            Noise levels [B], and standard normal noise of the same shape as the samples.
        """
        shape = (x_BCYX.shape[1], *self.window.grid.shape)
        normal = seeds.normal(self.seed, f"{stream} level", batch.fresh, (1, 1, 1), device=x_BCYX.device).flatten()
        sigma = self.teacher.noise.training_level(normal).clamp(LOWEST, self.teacher.noise.sigma_max)
        return sigma, seeds.normal(self.seed, stream, batch.fresh, shape, self.window.rows, device=x_BCYX.device)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss of samples, with one call each of teacher and critic, which are evaluated without gradient."""
        own = self.own
        calls = self.calls(batch.step)
        with timer.section("student"):
            x = self.made(network, batch, calls)
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
                apart = mismatch(x, batch.target_BCYX, own.huber, self.points, own.distance)
                parts["match"] = apart if calls == 1 else torch.zeros_like(apart)
                loss = loss + own.match * parts["match"]
            return self.penalised(loss, parts, x, batch)

    def partner_losses(self, name: str, x_BCYX: Tensor, batch: Batch) -> Tensor:
        """Return the denoising loss [B] of the critic on samples of the student."""
        sigma, eps = self.noised(x_BCYX, batch, "distill/critic")
        critic = conditioned(self.networks[name], batch.condition_BP)
        return denoising_errors(critic, self.teacher.noise, x_BCYX.detach(), sigma, eps, self.points)
