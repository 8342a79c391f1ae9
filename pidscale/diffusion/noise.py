"""Noise schedules: the noise levels that training draws and the levels that a solver visits.

Knows no networks, ranks or equations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pidscale.config import distinct, exact

# Log-normal training levels of EDM at 32 points a side. They are wider than those for images (-1.2, 1.2): high levels decide
# the strongest modes of a field, low levels its fine structure, which a residual weighs by 1 / h^2. Images need neither.
P_MEAN = -0.8
P_STD = 1.6
BETA_MIN = 0.1  # of VP and sub-VP
LARGEST = 1e6  # of noise levels and sigma_data: networks see their reciprocals and squares in float32
LEAST_KEPT = 0.99  # least share of the strongest mode's standard deviation that a schedule may keep


@dataclass(frozen=True)
class Noise(ABC):
    """A noise schedule: levels sigma of a noisy field x = x0 + sigma eps, from sigma_min to sigma_max.

    A kernel alpha x0 + s eps of another kind is this one times alpha, with sigma = s / alpha. Its probability flow and its
    solvers are the same functions of sigma. A kind therefore decides only which levels a solver visits, which levels training
    draws, and how training weighs them.

    Attributes:
        sigma_min: The lowest noise level above 0.
        sigma_max: The highest noise level, at which sampling starts.
        sigma_data: The standard deviation of the data in units of the model.
        kind: The name of the kind in settings and cards.
        least_max: The usual sigma_max, unless the data need a higher one.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    kind: ClassVar[str]
    least_max: ClassVar[float]

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < LARGEST or not 0 < self.sigma_data < LARGEST:
            raise ValueError(
                f"noise schedule {self}: expected 0 < sigma_min < sigma_max, 0 < sigma_data, all below {LARGEST:g}"
            )

    def describe(self) -> dict[str, Any]:
        """Return the schedule as plain JSON values, as a card stores it."""
        return {"kind": self.kind, **asdict(self)}

    @abstractmethod
    def levels(self, steps: int) -> Tensor:
        """Return the levels of `steps` solver steps, float64 [steps + 1], from sigma_max down to 0."""

    @abstractmethod
    def training_level(self, normal_B: Tensor) -> Tensor:
        """Return training levels [B] as a function of standard normal numbers [B]."""

    def weight(self, sigma_B: Tensor) -> Tensor:
        """Return the loss weights [B] that give the network's own target unit variance at every level.

        Karras et al. 2022, table 1.
        """
        return (sigma_B.square() + self.sigma_data**2) / (sigma_B * self.sigma_data).square()


@dataclass(frozen=True)
class EdmNoise(Noise):
    """The EDM schedule (Karras et al. 2022): solver levels evenly spaced in sigma^(1 / rho), log-normal training levels.

    Attributes:
        rho: The exponent of the solver levels.
        p_mean: The mean of ln(sigma) in training.
        p_std: The standard deviation of ln(sigma) in training.
        kind: `edm`.
        least_max: The sigma_max of Karras et al. 2022.
    """

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
        """Return the levels of Karras et al. 2022, eq. 5."""
        return _with_zero(karras_levels(self.sigma_min, self.sigma_max, steps, self.rho))

    def training_level(self, normal_B: Tensor) -> Tensor:
        """Return exp(p_mean + p_std n)."""
        return (self.p_mean + self.p_std * normal_B).exp()


@dataclass(frozen=True)
class TimedNoise(Noise):
    """A schedule defined through a time t: solver levels evenly spaced in t, training times uniform in t.

    Both cover t(sigma_min) to t(sigma_max).
    """

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise levels of times t."""

    @abstractmethod
    def time(self, sigma: float) -> float:
        """Return the time of a noise level."""

    def levels(self, steps: int) -> Tensor:
        """Return levels that are evenly spaced in t."""
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        top = self.time(self.sigma_max)
        bottom = self.time(self.sigma_min)
        return _with_zero(self.sigma(top + ramp * (bottom - top)))

    def training_level(self, normal_B: Tensor) -> Tensor:
        """Return the levels of uniform times: the normal distribution function makes the numbers uniform."""
        bottom = self.time(self.sigma_min)
        top = self.time(self.sigma_max)
        uniform = torch.special.ndtr(normal_B.double())
        return self.sigma(bottom + uniform * (top - bottom)).to(normal_B.dtype)


@dataclass(frozen=True)
class VpNoise(TimedNoise):
    """The variance-preserving schedule (Song et al. 2021, eq. 32).

    alpha^2 = exp(-B) and s^2 = 1 - alpha^2, where B(t) = beta_min t + beta_d t^2 / 2. beta_min is 0.1; beta_d follows from
    sigma_max, which is reached at t = 1.

    Attributes:
        sigma_max: The highest noise level; the default is that of beta from 0.1 to 20.
        kind: `vp`.
        least_max: The default sigma_max.
    """

    sigma_max: float = 152.2
    kind = "vp"
    least_max = 152.2

    def _exponent(self, sigma: float) -> float:
        """Return B of a noise level."""
        return math.log1p(sigma**2)

    def _level(self, exponent: Tensor) -> Tensor:
        """Return the noise levels of B."""
        return exponent.expm1().sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """Return s / alpha at times t."""
        slope = 2 * (self._exponent(self.sigma_max) - BETA_MIN)
        return self._level(BETA_MIN * t + 0.5 * slope * t.square())

    def time(self, sigma: float) -> float:
        """Return the root of the quadratic equation B(t) = B(sigma)."""
        slope = 2 * (self._exponent(self.sigma_max) - BETA_MIN)
        return (math.sqrt(BETA_MIN**2 + 2 * slope * self._exponent(sigma)) - BETA_MIN) / slope


@dataclass(frozen=True)
class SubVpNoise(VpNoise):
    """The sub-VP schedule (Song et al. 2021, eq. 29): alpha^2 = exp(-B) and s = 1 - alpha^2, so sigma = 2 sinh(B / 2)."""

    kind = "subvp"

    def _exponent(self, sigma: float) -> float:
        return 2 * math.asinh(sigma / 2)

    def _level(self, exponent: Tensor) -> Tensor:
        return 2 * (exponent / 2).sinh()


@dataclass(frozen=True)
class FlowNoise(TimedNoise):
    """Flow matching on straight paths (Lipman et al. 2023): alpha = 1 - t and s = t, so sigma = t / (1 - t).

    The network predicts the velocity eps - x0. sigma_max stands for t = 1: with sigma_max = 1000, t ends at 0.999.

    Attributes:
        sigma_max: The highest noise level.
        kind: `flow`.
        least_max: The default sigma_max.
    """

    sigma_max: float = 1000.0
    kind = "flow"
    least_max = 1000.0

    def sigma(self, t: Tensor) -> Tensor:
        """Return t / (1 - t)."""
        return t / (1 - t)

    def time(self, sigma: float) -> float:
        """Return sigma / (1 + sigma)."""
        return sigma / (1 + sigma)

    def weight(self, sigma_B: Tensor) -> Tensor:
        """Return 1 / t^2: squared errors of the velocity then count alike at every time."""
        return ((1 + sigma_B) / sigma_B).square()


KINDS: dict[str, type[Noise]] = {kind.kind: kind for kind in (EdmNoise, VpNoise, SubVpNoise, FlowNoise)}


def noise_from(description: Mapping[str, Any]) -> Noise:
    """Build the schedule that `Noise.describe` described.

    An unknown kind raises a KeyError, a key that the kind does not have a TypeError, a wrong value a ValueError.

    Args:
        description: The plain values; without `kind`, as in early cards, the schedule is EDM's.

    Returns:
        The schedule.
    """
    values = dict(description)
    return KINDS[values.pop("kind", "edm")](**values)


def karras_levels(sigma_min: float, sigma_max: float, count: int, rho: float = 7.0) -> Tensor:
    """Return levels that are evenly spaced in sigma^(1 / rho) (Karras et al. 2022, eq. 5, without its last level 0).

    Args:
        sigma_min: The last level.
        sigma_max: The first level.
        count: The number of levels.
        rho: The exponent.

    Returns:
        The levels from sigma_max down to sigma_min, float64 [count].
    """
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    top = sigma_max ** (1 / rho)
    bottom = sigma_min ** (1 / rho)
    return (top + ramp * (bottom - top)) ** rho


def _with_zero(levels: Tensor) -> Tensor:
    """Return the levels and 0 after them."""
    return torch.cat([levels, levels.new_zeros(1)])


def kept(sigma_max: float, strongest_mode: float) -> float:
    """Return the share of a mode's standard deviation that sampling keeps.

    The flow starts from noise alone, sigma_max * eps, whereas a noisy field at that level still holds the mode.

    Args:
        sigma_max: The level at which sampling starts.
        strongest_mode: The standard deviation of the mode in units of the model.

    Returns:
        sigma_max / sqrt(sigma_max^2 + strongest_mode^2).
    """
    return sigma_max / math.hypot(sigma_max, strongest_mode)


def schedule_for(
    kind: str,
    strongest_mode: float,
    points: int,
    sigma_max: float | None = None,
    p_mean: float | None = None,
    p_std: float | None = None,
) -> Noise:
    """Return the schedule for data whose strongest orthonormal mode has a given standard deviation.

    Args:
        kind: A key of `KINDS`.
        strongest_mode: The standard deviation of the strongest mode, in units of the model.
        points: Grid points a side.
        sigma_max: The highest level; chosen from the data if None.
        p_mean: The mean of ln(sigma) in training, of EDM alone; chosen from `points` if None.
        p_std: The standard deviation of ln(sigma) in training, of EDM alone; `P_STD` if None.

    Returns:
        The schedule.

    Raises:
        ValueError: The schedule keeps less than 99 % of the strongest mode.
    """
    chosen = max(KINDS[kind].least_max, 10.0 * strongest_mode) if sigma_max is None else sigma_max
    share = kept(chosen, strongest_mode)
    if not share >= LEAST_KEPT:
        percent, _ = distinct(100 * share, 100 * LEAST_KEPT, digits=7)
        raise ValueError(
            f"teacher.sigma_max={exact(chosen)} keeps {percent} % of the strongest mode of this data (standard "
            f"deviation {strongest_mode:.3g}), where at least {LEAST_KEPT:.0%} is needed; set it to "
            f"{math.ceil(10 * strongest_mode)} or more"
        )
    if kind != "edm":
        return KINDS[kind](sigma_max=chosen)
    return EdmNoise(
        sigma_max=chosen,
        p_mean=P_MEAN + math.log(points / 32) if p_mean is None else p_mean,
        p_std=P_STD if p_std is None else p_std,
    )


def _unchanged(values: Tensor) -> Tensor:
    return values


def strongest_mode(fields_BCyX: Tensor, iterations: int = 30, total: Callable[[Tensor], Tensor] = _unchanged) -> float:
    """Return the standard deviation of the strongest orthonormal mode of a batch of fields, by power iteration.

    Args:
        fields_BCyX: Normalised fields, or the rows [B, C, y, X] of them that this rank holds.
        iterations: The number of power iterations.
        total: Sums a tensor over the ranks that hold the other rows; the default is for whole fields.

    Returns:
        The standard deviation, in the units of the fields; 0 where all fields are equal, as a single one is.
    """
    flat = fields_BCyX.flatten(1).double()
    flat = flat - flat.mean(dim=0)
    vector = flat[0]
    if total(vector.square().sum()) == 0:  # the first field equals the mean: start from the field farthest from it
        sizes = total(flat.square().sum(dim=1))
        if not sizes.any():
            return 0.0
        vector = flat[int(sizes.argmax())]
    for _ in range(iterations + 1):
        vector = vector / total(vector.square().sum()).sqrt()
        along = total(flat @ vector)
        vector = flat.T @ along
    return float(along.square().mean().sqrt())
