"""Consistency distillation: the student maps every point of a trajectory of the teacher's flow to its end. Knows no ranks.

The student is a consistency function f(x, sigma) with f(x, sigma_min) = x, whatever its weights. On a Karras grid, one Heun
step of the teacher leads from a noisy state x_{n+1} = x0 + sigma_{n+1} eps' to x_n, and

    L = mean d( f(x_{n+1}, sigma_{n+1}),  stopgrad f_target(x_n, sigma_n) )

where the weights of f_target are an average of the student's weights (Song, Dhariwal, Chen and Sutskever, Consistency models,
ICML 2023, definition 1 with lambda = 1, and algorithm 2). Both sides use the same noise eps'. At zero loss the student equals
the composition of the Heun steps of the grid down to sigma_min.

In terms of a denoiser D, as for the other objectives,

    f(x, sigma) = a x + (1 - a) D(x, sigma),   a = (1 / sigma - 1 / sigma_max) / (1 / sigma_min - 1 / sigma_max),

so that a is 1 at sigma_min, which is the boundary condition, and 0 at sigma_max: a field is f(sigma_max eps, sigma_max) =
D(sigma_max eps, sigma_max), the same single call as for the other objectives, and the card has the same form. Well below
sigma_max, the factor of the network's raw output is that of the paper, sigma_data (sigma - sigma_min) / sqrt(sigma^2 +
sigma_data^2), and a student with the initial weights of the teacher is an Euler step of its flow from sigma to sigma_min.

The paper takes x0 from data. Here x0 is an endpoint of the teacher, from the buffer that the matching objectives use as well:
training fields would need a second feed with its own parameters and order. The noise eps' is drawn again at every step,
independently of the noise that the endpoint was made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pidscale.config import setting
from pidscale.diffusion.denoiser import ConditionalDenoiser, conditioned
from pidscale.diffusion.solvers import heun_step
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import DistanceSettings, Learned, Objective, Partner, Targets, mismatch
from pidscale.distill.objectives.levels import neighbours, noisy_endpoints
from pidscale.meter import StepTimer

STREAM = "distill/consistency"
TARGET = "target"


@dataclass(frozen=True)
class ConsistencySettings(DistanceSettings):
    """Settings `distill.objective` of consistency distillation.

    Attributes:
        name: `consistency`.
        levels: Number of noise levels of the grid.
        rate: Decay of the averaged target: the share of it that each step keeps.
    """

    name: str = "consistency"
    levels: int = setting(40, at_least=2, at_most=100_000)
    rate: float = setting(0.95, at_least=0, below=1)


def consistency_map(x_BCYX: Tensor, clean_BCYX: Tensor, sigma_B: Tensor, lowest: float, highest: float) -> Tensor:
    """Return f(x, sigma) as defined in the module docstring.

    Args:
        x_BCYX: Noisy fields.
        clean_BCYX: Denoised fields D(x, sigma).
        sigma_B: Noise levels of the fields.
        lowest: sigma_min, at which f(x, sigma) is x exactly.
        highest: sigma_max, at which f(x, sigma) is D(x, sigma) exactly.

    Returns:
        Fields [B, C, Y, X].
    """
    low, high = (1 / sigma_B.new_tensor(level) for level in (lowest, highest))
    share = ((1 / sigma_B - high) / (low - high)).reshape(-1, 1, 1, 1)  # exactly 1 and 0 at the ends
    return share * x_BCYX + (1 - share) * clean_BCYX


@dataclass(frozen=True)
class Consistency(Objective[ConsistencySettings]):
    """Consistency objective. Parts of the loss: `consistency`, and the terms of the residual."""

    settings_class = ConsistencySettings

    @classmethod
    def passes(cls, own: ConsistencySettings) -> int:
        """Return 2: at a level of the grid and, for the residual, at the highest level."""
        return 2

    @classmethod
    def targets(cls, own: ConsistencySettings) -> Targets:
        """Return `ENDPOINTS`: they are the fields x0 that noise is added to."""
        return Targets.ENDPOINTS

    @classmethod
    def partners(cls, own: ConsistencySettings) -> tuple[Partner, ...]:
        """Return the averaged target."""
        return (Partner(TARGET, own.rate),)

    def levels(self, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the levels sigma_{n+1} and the next lower levels sigma_n of the grid, float64 [B] each (`neighbours`)."""
        return neighbours(self.teacher.noise, self.own.levels, self.seed, f"{STREAM} level", fresh)

    def noisy(self, batch: Batch, sigma_B: Tensor) -> Tensor:
        """Add noise of these levels to the endpoints of a batch; the noise is drawn again at every step."""
        return noisy_endpoints(batch, sigma_B, self.window, self.seed, STREAM)

    def flow(self, x_BCYX: Tensor, here_B: Tensor, there_B: Tensor, condition_BP: Tensor) -> Tensor:
        """Follow the teacher's flow from one noise level to another with one Heun step (two calls).

        Args:
            x_BCYX: States of the flow.
            here_B: Noise levels of the states.
            there_B: Noise levels after the step.
            condition_BP: Condition of each sample.

        Returns:
            States at the new levels, [B, C, y, X].
        """
        return heun_step(conditioned(self.teacher.denoiser, condition_BP), x_BCYX, here_B, there_B)

    def map(self, x_BCYX: Tensor, clean_BCYX: Tensor, sigma_B: Tensor) -> Tensor:
        """Return f(x, sigma) for the lowest and highest noise level of the teacher."""
        return consistency_map(x_BCYX, clean_BCYX, sigma_B, self.teacher.noise.sigma_min, self.teacher.noise.sigma_max)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """Return the loss. All student inputs form a single batch; teacher and target are evaluated without gradient."""
        eps, own = batch.eps_BCYX, batch.condition_BP
        here, there = (level.to(eps.device, eps.dtype) for level in self.levels(batch.fresh))
        noisy = self.noisy(batch, here)
        states = [noisy]
        levels = [here]
        if self.physics is not None:
            top = self.teacher.noise.sigma_max
            states.append(top * eps)
            levels.append(torch.full_like(here, top))
        with timer.section("student"):
            made = network(torch.cat(states), torch.cat(levels), own.repeat(len(states), 1))
            clean, *field = made.chunk(len(states))
            left = self.map(noisy, clean, here)
        with timer.section("flow"), torch.no_grad():
            ahead = self.flow(noisy, here, there, own)
        with timer.section("target"), torch.no_grad():
            right = self.map(ahead, conditioned(self.networks[TARGET], own)(ahead, there), there)
        with timer.section("residual"):
            loss = mismatch(left, right, self.own.huber, self.points, self.own.distance)
            x = self.finished(field[0], batch.condition_BP) if field else left
            return self.penalised(loss, {"consistency": loss}, x, batch)
