"""Base class of the objectives of a teacher: the loss of a micro-step. Knows no ranks and no files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from torch import Tensor

from pidscale.config import ObjectiveSettings, TeacherSettings
from pidscale.dataset.problem import Problem
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.noise import Noise
from pidscale.generator.card import Kind
from pidscale.ops.window import Window

S = TypeVar("S", bound=ObjectiveSettings)


class MicroBatch(NamedTuple):
    """Samples of a micro-step on one rank.

    Attributes:
        x_BCYX: Clean fields in units of the model, the rows of this rank.
        sigma_B: Noise levels.
        eps_BCYX: Standard normal noise, the same rows.
        params_BP: Varying parameters of each sample.
        progress: Share of the training steps that are done.
    """

    x_BCYX: Tensor
    sigma_B: Tensor
    eps_BCYX: Tensor
    params_BP: Tensor
    progress: float = 0.0

    @property
    def noisy_BCYX(self) -> Tensor:
        """The clean fields with noise of their levels."""
        return self.x_BCYX + self.sigma_B.reshape(-1, 1, 1, 1) * self.eps_BCYX


@dataclass(frozen=True)
class TeacherObjective(ABC, Generic[S]):
    """Base class of objectives: computes the loss of a teacher's micro-step. Losses are the shares of this rank's rows.

    Attributes:
        settings: Settings of the section `teacher`.
        problem: Equation, grid, units and data.
        noise: The noise schedule.
        window: Rows of this rank.
        settings_class: Dataclass of the section `teacher.objective`.
        parts: Names of the parts of the loss.
        needs_start: Whether it is meant for a finished teacher, `teacher.start`.
        kind: Kind of the network that is trained.
    """

    settings: TeacherSettings
    problem: Problem
    noise: Noise
    window: Window
    settings_class: ClassVar[type[ObjectiveSettings]]
    parts: ClassVar[tuple[str, ...]]
    needs_start: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.TEACHER

    @classmethod
    def passes(cls, own: Any) -> int:
        """Return the number of network evaluations per sample of a micro-step whose activations are held at the same time."""
        return 1

    @classmethod
    def conflict_free(cls, own: Any) -> bool:
        """Return whether the gradients of the two parts are combined without conflict (engine/conflict.py), not added."""
        return False

    @cached_property
    def own(self) -> S:
        """The settings of the objective."""
        return cast(S, self.settings.own)

    @property
    def points(self) -> int:
        """Number of values of a whole joint field."""
        return math.prod(self.problem.shape)

    @abstractmethod
    def losses(self, denoiser: Denoiser, batch: MicroBatch) -> tuple[Tensor, ...]:
        """Return the parts of the loss of each sample.

        Args:
            denoiser: The teacher. It is called as often on every rank, and `passes` says how often with gradients.
            batch: The samples.

        Returns:
            One tensor [B] for each name in `parts`; the loss is their sum.
        """
