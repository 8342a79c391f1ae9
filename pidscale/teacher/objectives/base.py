"""Base class of the objectives of a teacher: the loss of a micro-step. Knows no ranks and no files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Generic, TypeVar, cast

from torch import Tensor

from pidscale.config import ObjectiveSettings, TeacherSettings
from pidscale.dataset.problem import Problem
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.noise import Noise
from pidscale.ops.window import Window

S = TypeVar("S", bound=ObjectiveSettings)


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
    """

    settings: TeacherSettings
    problem: Problem
    noise: Noise
    window: Window
    settings_class: ClassVar[type[ObjectiveSettings]]
    parts: ClassVar[tuple[str, ...]]

    @cached_property
    def own(self) -> S:
        """The settings of the objective."""
        return cast(S, self.settings.own)

    @property
    def points(self) -> int:
        """Number of values of a whole joint field."""
        return math.prod(self.problem.shape)

    @abstractmethod
    def losses(
        self, denoiser: Denoiser, x_BCYX: Tensor, sigma_B: Tensor, eps_BCYX: Tensor, params_BP: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the parts of the loss of each sample.

        Args:
            denoiser: The teacher. It must be called exactly once, so that ZeRO sees one forward pass for each backward pass.
            x_BCYX: Clean fields in units of the model, the rows of this rank.
            sigma_B: Noise levels.
            eps_BCYX: Standard normal noise, the same rows.
            params_BP: Varying parameters of each sample.

        Returns:
            One tensor [B] for each name in `parts`; the loss is their sum.
        """
