"""The denoising objective, which every other adds to. Knows no ranks and no files."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pidscale.config import ObjectiveSettings
from pidscale.diffusion.denoiser import Denoiser
from pidscale.diffusion.objective import denoising_errors
from pidscale.teacher.objectives.base import MicroBatch, TeacherObjective


@dataclass(frozen=True)
class DenoisingSettings(ObjectiveSettings):
    """Settings `teacher.objective` of denoising.

    Attributes:
        name: `denoising`.
    """

    name: str = "denoising"


@dataclass(frozen=True)
class Denoising(TeacherObjective[DenoisingSettings]):
    """Denoising objective (Karras et al. 2022, eq. 8)."""

    settings_class = DenoisingSettings
    parts = ("denoising",)

    def losses(self, denoiser: Denoiser, batch: MicroBatch) -> tuple[Tensor, ...]:
        """Return the weighted squared error of the denoised fields."""
        return (denoising_errors(denoiser, self.noise, batch.x_BCYX, batch.sigma_B, batch.eps_BCYX, self.points),)
