"""Noise levels: how much to add in training, and the levels a solver visits. Knows no networks, ranks or equations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pidscale.config import exact

# Training levels at 32 points a side: wider than for images (-1.2, 1.2). High levels set the strongest modes of a field, low
# ones its fine structure, which a residual weighs by 1 / h^2; images need neither.
P_MEAN, P_STD = -0.8, 1.6
BETA_MIN = 0.1  # of VP and sub-VP
LARGEST = 1e6  # level or deviation of data: networks see its reciprocal and its square in float32
KEPT = 0.99  # least share of the strongest mode's standard deviation that a schedule may keep


@dataclass(frozen=True)
class Noise(ABC):
    """Levels sigma of a noisy field x = x0 + sigma eps, from sigma_min to sigma_max.

    A kernel alpha x0 + s eps of another kind is this one divided by alpha, with sigma = s / alpha: its flow and its solvers
    are the same in sigma, and a kind says only which levels a solver visits and which ones training draws.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    kind: ClassVar[str]
    least_max: ClassVar[float]  # the usual sigma_max, where data do not ask for more

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < LARGEST or not 0 < self.sigma_data < LARGEST:
            raise ValueError(
                f"noise schedule {self}: expected 0 < sigma_min < sigma_max, 0 < sigma_data, all below {LARGEST:g}"
            )

    def describe(self) -> dict[str, Any]:
        """The schedule as plain JSON values."""
        return {"kind": self.kind, **asdict(self)}

    @abstractmethod
    def levels(self, steps: int) -> Tensor:
        """The levels of `steps` solver steps, float64 [steps + 1], from sigma_max down to 0."""

    @abstractmethod
    def training_level(self, normal_B: Tensor) -> Tensor:
        """Levels for training from standard normal numbers [B]."""

    def weight(self, sigma_B: Tensor) -> Tensor:
        """Weights [B] of squared errors of denoised fields that make the network's own target of unit size at every level."""
        return (sigma_B.square() + self.sigma_data**2) / (sigma_B * self.sigma_data).square()


@dataclass(frozen=True)
class EdmNoise(Noise):
    """The EDM schedule (Karras et al. 2022): levels even in sigma^(1 / rho), log-normal ones in training."""

    rho: float = 7.0
    p_mean: float = -1.2
    p_std: float = 1.2
    kind = "edm"
    least_max = 80.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rho, self.p_std) <= 0:
            raise ValueError(f"noise schedule {self}: expected rho and p_std above 0")

    def levels(self, steps: int) -> Tensor:
        """As eq. 5 has them."""
        return _down_to_zero(karras_levels(self.sigma_min, self.sigma_max, steps, self.rho))

    def training_level(self, normal_B: Tensor) -> Tensor:
        """exp(p_mean + p_std n)."""
        return (self.p_mean + self.p_std * normal_B).exp()


@dataclass(frozen=True)
class TimedNoise(Noise):
    """Kinds that are told by a time t: levels even in t, and in training t uniform, from t(sigma_min) to t(sigma_max)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The level of a time."""

    @abstractmethod
    def time(self, sigma: float) -> float:
        """The time of a level."""

    def levels(self, steps: int) -> Tensor:
        """Even in t."""
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        top, bottom = self.time(self.sigma_max), self.time(self.sigma_min)
        return _down_to_zero(self.sigma(top + ramp * (bottom - top)))

    def training_level(self, normal_B: Tensor) -> Tensor:
        """Those of uniform times."""
        bottom, top = self.time(self.sigma_min), self.time(self.sigma_max)
        uniform = torch.special.ndtr(normal_B.double())
        return self.sigma(bottom + uniform * (top - bottom)).to(normal_B.dtype)


@dataclass(frozen=True)
class VpNoise(TimedNoise):
    """Variance preserving (Song et al. 2021, eq. 32): alpha^2 = exp(-B), s^2 = 1 - alpha^2, B = beta_min t + beta_d t^2 / 2.

    beta_d follows from sigma_max, which is reached at t = 1; beta_min is 0.1.
    """

    sigma_max: float = 152.2  # that of beta from 0.1 to 20
    kind = "vp"
    least_max = 152.2

    def _exponent(self, sigma: float) -> float:
        """B of a level."""
        return math.log1p(sigma**2)

    def _level(self, exponent: Tensor) -> Tensor:
        """The level of B."""
        return exponent.expm1().sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """s / alpha."""
        slope = 2 * (self._exponent(self.sigma_max) - BETA_MIN)
        return self._level(BETA_MIN * t + 0.5 * slope * t.square())

    def time(self, sigma: float) -> float:
        """The root of the quadratic B(t)."""
        slope = 2 * (self._exponent(self.sigma_max) - BETA_MIN)
        return (math.sqrt(BETA_MIN**2 + 2 * slope * self._exponent(sigma)) - BETA_MIN) / slope


@dataclass(frozen=True)
class SubVpNoise(VpNoise):
    """The sub-VP kernel (Song et al. 2021, eq. 29): alpha^2 = exp(-B), s = 1 - alpha^2, so that sigma = 2 sinh(B / 2)."""

    kind = "subvp"

    def _exponent(self, sigma: float) -> float:
        return 2 * math.asinh(sigma / 2)

    def _level(self, exponent: Tensor) -> Tensor:
        return 2 * (exponent / 2).sinh()


@dataclass(frozen=True)
class FlowNoise(TimedNoise):
    """Flow matching on straight paths (Lipman et al. 2023): alpha = 1 - t, s = t, so that sigma = t / (1 - t).

    The network predicts the velocity eps - x0. sigma_max stands for t = 1: of 1000, t ends at 0.999.
    """

    sigma_max: float = 1000.0
    kind = "flow"
    least_max = 1000.0

    def sigma(self, t: Tensor) -> Tensor:
        """t / (1 - t)."""
        return t / (1 - t)

    def time(self, sigma: float) -> float:
        """sigma / (1 + sigma)."""
        return sigma / (1 + sigma)

    def weight(self, sigma_B: Tensor) -> Tensor:
        """1 / t^2: squared errors of the velocity count alike at every time."""
        return ((1 + sigma_B) / sigma_B).square()


KINDS: dict[str, type[Noise]] = {kind.kind: kind for kind in (EdmNoise, VpNoise, SubVpNoise, FlowNoise)}


def noise_from(description: Mapping[str, Any]) -> Noise:
    """The schedule of a description; one that names no kind is EDM's. Raises KeyError, TypeError, ValueError."""
    values = dict(description)
    return KINDS[values.pop("kind", "edm")](**values)


def karras_levels(sigma_min: float, sigma_max: float, count: int, rho: float = 7.0) -> Tensor:
    """Levels from sigma_max down to sigma_min, even in sigma^(1 / rho), float64 [count] (Karras et al. 2022, eq. 5)."""
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (top + ramp * (bottom - top)) ** rho


def _down_to_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def kept(sigma_max: float, strongest_mode: float) -> float:
    """The share of a mode's standard deviation that a flow from noise of sigma_max alone keeps: its start has none of it."""
    return sigma_max / math.hypot(sigma_max, strongest_mode)


def schedule_for(
    kind: str,
    strongest_mode: float,
    points: int,
    sigma_max: float | None = None,
    p_mean: float | None = None,
    p_std: float | None = None,
) -> Noise:
    """Return the schedule for data whose strongest orthonormal mode has this standard deviation (in units of the model).

    Less than 99 % of it kept is refused with a ValueError. points: grid points a side. p_mean, p_std: of EDM alone.
    """
    chosen = max(KINDS[kind].least_max, 10.0 * strongest_mode) if sigma_max is None else sigma_max
    share = kept(chosen, strongest_mode)
    if not share >= KEPT:
        raise ValueError(
            f"teacher.sigma_max={exact(chosen)} keeps {100 * share:.7g} % of the strongest mode of this data "
            f"(standard deviation {strongest_mode:.3g}): at least {KEPT:.0%} is needed, so {10 * strongest_mode:.0f} or more"
        )
    if kind != "edm":
        return KINDS[kind](sigma_max=chosen)
    return EdmNoise(
        sigma_max=chosen,
        p_mean=P_MEAN + math.log(points / 32) if p_mean is None else p_mean,
        p_std=P_STD if p_std is None else p_std,
    )


def _whole(part: Tensor) -> Tensor:
    return part


def strongest_mode(fields_BCyX: Tensor, iterations: int = 30, total: Callable[[Tensor], Tensor] = _whole) -> float:
    """Standard deviation of the strongest orthonormal mode of a batch of normalised fields, by power iteration.

    0 where all fields are the same, as a single one is. total: adds up what holders of other rows have, where these are some
    rows of the fields.
    """
    flat = fields_BCyX.flatten(1).double()
    flat = flat - flat.mean(dim=0)
    vector = flat[0]
    if total(vector.square().sum()) == 0:  # the first is the mean of all: start from the one farthest from it
        sizes = total(flat.square().sum(dim=1))
        if not sizes.any():
            return 0.0
        vector = flat[int(sizes.argmax())]
    for _ in range(iterations + 1):
        vector = vector / total(vector.square().sum()).sqrt()
        along = total(flat @ vector)
        vector = flat.T @ along
    return float(along.square().mean().sqrt())
