"""Noise levels: how much to add in training, and the levels a solver visits. Knows no networks, ranks or equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

# Training levels at 32 points a side: wider than for images (-1.2, 1.2). High levels set the strongest modes of a field, low
# ones its fine structure, which a residual weighs by 1 / h^2; images need neither.
P_MEAN, P_STD = -0.8, 1.6
KEPT = 0.99  # least share of the strongest mode's standard deviation that a schedule may keep


@dataclass(frozen=True)
class EdmNoise:
    """The EDM schedule (Karras et al. 2022): sigma from sigma_min to sigma_max, log-normal levels in training."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf or min(self.rho, self.p_std, self.sigma_data) <= 0:
            raise ValueError(
                f"noise schedule {self}: expected 0 < sigma_min < sigma_max and rho, p_std, sigma_data above 0"
            )

    def describe(self) -> dict[str, float]:
        """The schedule as plain JSON values."""
        return asdict(self)

    def levels(self, steps: int) -> Tensor:
        """The levels of `steps` solver steps, float64 [steps + 1], from sigma_max down to 0 (eq. 5)."""
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        top, bottom = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return torch.cat([(top + ramp * (bottom - top)) ** self.rho, torch.zeros(1, dtype=torch.float64)])

    def training_level(self, normal_B: Tensor) -> Tensor:
        """Levels for training from standard normal numbers [B]."""
        return (self.p_mean + self.p_std * normal_B).exp()


def edm_for(
    strongest_mode: float,
    points: int,
    sigma_max: float | None = None,
    p_mean: float | None = None,
    p_std: float | None = None,
) -> EdmNoise:
    """Return the schedule for data whose strongest orthonormal mode has this standard deviation (in units of the model).

    A flow that starts from noise of sigma_max alone keeps sigma_max / sqrt(sigma_max^2 + s1^2) of that mode; less than
    99 % is refused with a ValueError. points: grid points a side.
    """
    chosen = max(80.0, 10.0 * strongest_mode) if sigma_max is None else sigma_max
    kept = chosen / math.hypot(chosen, strongest_mode)
    if not kept >= KEPT:
        raise ValueError(
            f"teacher.sigma_max={chosen:g} keeps {kept:.1%} of the strongest mode of this data "
            f"(standard deviation {strongest_mode:.3g}): at least {KEPT:.0%} is needed, so {10 * strongest_mode:.0f} or more"
        )
    return EdmNoise(
        sigma_max=chosen,
        p_mean=P_MEAN + math.log(points / 32) if p_mean is None else p_mean,
        p_std=P_STD if p_std is None else p_std,
    )


def _whole(part: Tensor) -> Tensor:
    return part


def strongest_mode(fields_BCyX: Tensor, iterations: int = 30, total: Callable[[Tensor], Tensor] = _whole) -> float:
    """Standard deviation of the strongest orthonormal mode of a batch of normalised fields, by power iteration.

    total: adds up what holders of other rows have, where these are some rows of the fields.
    """
    flat = fields_BCyX.flatten(1).double()
    flat = flat - flat.mean(dim=0)
    vector = flat[0]
    for _ in range(iterations + 1):
        vector = vector / total(vector.square().sum()).sqrt()
        along = total(flat @ vector)
        vector = flat.T @ along
    return float(along.square().mean().sqrt())
