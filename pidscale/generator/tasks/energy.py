"""The energy of a task: how far a generated field is from an observation, from the equation, and from typical noise.

    E(z) = |M (d(eps) - x')|^2 / (2 sigma^2)  +  physics D / 2 sum_k R_k(d(eps))^2 / s_k^2  +  |z|^2 / 2

M selects the points with known values x', sigma is the standard deviation of their noise. R_k are the relative residuals l2,
dual and boundary, s_k the scales that the student was distilled with. D is the number of values of a field: with physics = 1
the equation weighs as much as one observation of every value. z = (eps, p) holds the noise and one standard normal number for
each varying parameter; a parameter that is not given is low + (high - low) Phi(p), uniform in its range. The last term is the
negative logarithm of the density of z, so that the field of least energy is the likeliest one (MAP; Zhang et al.,
Physics-informed distillation of diffusion models, ICML 2026, algorithm 3).

Readings that are not values at grid points (readings.py) add terms of the first kind. Channels that are known everywhere and
without noise replace the generated ones in R_k. Scattered points do not: the jumps that they make in a field would dominate
the residual. Knows no files and no ranks.

Shapes: z_bD vectors, of which the observation with the number owners_b is the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pidscale.generator.arguments import override_params
from pidscale.generator.one_step import OneStepGenerator
from pidscale.generator.scales import residual_scales
from pidscale.generator.tasks.observations import Observation
from pidscale.ops.grid import Grid
from pidscale.pde.base import Pde
from pidscale.pde.residuals import residual_squares
from pidscale.pde.terms import NORMS


class Measured(NamedTuple):
    """Fields of vectors and how well they agree, on the CPU.

    Attributes:
        fields: Physical fields [B, C, Y, X].
        params: Varying parameters [B, P].
        mismatch: Root mean square of (field - known value) / sigma over the known points, [B].
        residual: Relative residuals, each [B], by term.
    """

    fields: Tensor
    params: Tensor
    mismatch: Tensor
    residual: dict[str, Tensor]


@dataclass(frozen=True)
class PosedTask:
    """A task in full: N observations, and a map from vectors to fields.

    Attributes:
        pde: The equation.
        grid: Grid of the fields.
        draw: The map from noise [b, C, Y, X] and varying parameters [b, P] to physical fields, differentiable.
        observation: Known values of N fields.
        params_NP: Varying parameters of each observation; NaN where one is not known.
        scales: Squared residual scales s_k^2 by term; empty where `physics` is 0.
        physics: Weight of the residual.
        prior: Weight of |eps|^2 / 2.
    """

    pde: Pde
    grid: Grid
    draw: Callable[[Tensor, Tensor], Tensor]
    observation: Observation
    params_NP: Tensor
    scales: Mapping[str, float]
    physics: float
    prior: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape [C, Y, X] of one joint field."""
        return len(self.pde.channels), *self.grid.shape

    def fields(self, z_bD: Tensor, owners_b: Tensor) -> tuple[Tensor, Tensor]:
        """Map vectors to fields.

        Args:
            z_bD: Vectors: the noise of a field, then one number for each varying parameter.
            owners_b: Number of the observation of each vector.

        Returns:
            Physical fields [b, C, Y, X], and varying parameters [b, P].
        """
        size = math.prod(self.shape)
        given = self.params_NP[owners_b]
        ranges = torch.tensor(list(self.pde.varying.values()), dtype=z_bD.dtype, device=z_bD.device).reshape(-1, 2)
        drawn = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * torch.special.ndtr(z_bD[:, size:])
        params = torch.where(given.isnan(), drawn, given)
        return self.draw(z_bD[:, :size].unflatten(1, self.shape), params), params

    @property
    def values(self) -> list[int]:
        """Number of values of a field, then that of each of the readings: the parts of `noise_bK`."""
        return [math.prod(self.shape), *(one.values_NM.shape[1] for one in self.observation.readings)]

    def misfit(self, fields_bCYX: Tensor, owners_b: Tensor, noise_bK: Tensor | None = None) -> Tensor:
        """Return the sum of ((field - known value) / sigma)^2 over the known points, and the same of the readings.

        Args:
            fields_bCYX: Physical fields.
            owners_b: Number of the observation of each field.
            noise_bK: Noise that is added to the known values and readings, in units of sigma, as long as the sum of
                `values`; None for none.

        Returns:
            Sums [b].
        """
        seen = self.observation
        difference = (fields_bCYX - seen.values_NCYX[owners_b]) / seen.sigma_NC[owners_b, :, None, None]
        noise = [None] * len(self.values) if noise_bK is None else noise_bK.split(self.values, dim=1)
        difference = difference if noise[0] is None else difference - noise[0].unflatten(1, self.shape)
        total = torch.where(seen.known_NCYX[owners_b], difference, 0.0).square().flatten(1).sum(dim=1)
        for one, own in zip(seen.readings, noise[1:], strict=True):
            total = total + one.misfit(fields_bCYX, owners_b, own)
        return total

    def energy(self, z_bD: Tensor, owners_b: Tensor, centre_bD: Tensor | None, noise_bK: Tensor | None) -> Tensor:
        """Return the energies of vectors, differentiable.

        Args:
            z_bD: Vectors.
            owners_b: Number of the observation of each vector.
            centre_bD: Centre of the prior; None for 0.
            noise_bK: As in `misfit`.

        Returns:
            Energies [b].
        """
        size = math.prod(self.shape)
        fields, params = self.fields(z_bD, owners_b)
        total = 0.5 * self.misfit(fields, owners_b, noise_bK)
        if self.physics > 0:
            seen = self.observation
            held = torch.where(seen.whole_NC[owners_b, :, None, None], seen.values_NCYX[owners_b], fields)
            squares = residual_squares(self.pde, self.grid, held, params)
            weight = 0.5 * self.physics * size
            total = total + weight * torch.stack([squares[k] / self.scales[k] for k in NORMS]).sum(dim=0)
        away = z_bD if centre_bD is None else z_bD - centre_bD
        return total + 0.5 * (self.prior * away[:, :size].square().sum(dim=1) + away[:, size:].square().sum(dim=1))

    @torch.no_grad()
    def measure(self, z_BD: Tensor, owners_B: Tensor, batch: int) -> Measured:
        """Measure the fields of vectors.

        Args:
            z_BD: Vectors.
            owners_B: Number of the observation of each vector.
            batch: Number of vectors handled at once.

        Returns:
            Fields, parameters, mismatches and residuals.
        """
        device = self.params_NP.device
        parts = []
        for z, owners in zip(z_BD.split(batch), owners_B.split(batch), strict=True):
            owners = owners.to(device)
            fields, params = self.fields(z.to(device), owners)
            mismatch = (self.misfit(fields, owners) / self.observation.points[owners]).sqrt()
            squares = residual_squares(self.pde, self.grid, fields, params)
            parts.append([t.cpu() for t in (fields, params, mismatch, *(squares[k].sqrt() for k in NORMS))])
        fields, params, mismatch, *residuals = (torch.cat(values) for values in zip(*parts, strict=True))
        return Measured(fields, params, mismatch, dict(zip(NORMS, residuals, strict=True)))


def pose(
    generator: OneStepGenerator, observation: Observation, params: Mapping[str, Any] | None, physics: float
) -> PosedTask:
    """Pose a task to a student. A parameter that is unknown or out of its range raises a UserError.

    Args:
        generator: The student.
        observation: Known values.
        params: Varying parameters that are known, by name.
        physics: Weight of the residual.

    Returns:
        The task, on the student's device.
    """
    given = known_params(generator.pde, len(observation), params).to(generator.device)
    scales = residual_scales(generator) if physics > 0 else {}
    return PosedTask(
        generator.pde,
        generator.grid,
        generator.differentiable,
        observation.on(generator.device),
        given,
        scales,
        physics,
    )


def known_params(pde: Pde, count: int, params: Mapping[str, Any] | None) -> Tensor:
    """Return the varying parameters that a user gives.

    Args:
        pde: The equation.
        count: Number of observations.
        params: Values by name, one number or [N].

    Returns:
        Parameters, float32 [N, P]; NaN where one is not given.
    """
    return override_params(pde, torch.full((count, len(pde.varying)), math.nan, dtype=torch.float64), params).float()
