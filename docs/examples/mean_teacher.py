"""An objective of one's own: match the teacher's endpoints, and stay near an average of the student's own past.

The second term is a mean teacher (Tarvainen and Valpola, NeurIPS 2017): the average of the weights makes a field of the same
noise, and the student is drawn to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pidscale.config import ObjectiveSettings, setting
from pidscale.diffusion.denoiser import ConditionalDenoiser
from pidscale.distill.endpoints.batch import Batch
from pidscale.distill.objectives.base import Learned, Objective, Partner, Targets, mismatch
from pidscale.meter import StepTimer


@dataclass(frozen=True)
class MeanTeacherSettings(ObjectiveSettings):
    """The section distill.objective of this objective, with its bounds."""

    name: str = "mean_teacher"
    pull: float = setting(0.1, at_least=0)
    rate: float = setting(0.99, at_least=0, below=1)


@dataclass(frozen=True)
class MeanTeacher(Objective[MeanTeacherSettings]):
    """Parts: `match`, `change`, and the residual's terms."""

    settings_class = MeanTeacherSettings

    @classmethod
    def targets(cls, own: MeanTeacherSettings) -> Targets:
        """Batches hold endpoints of the teacher."""
        return Targets.ENDPOINTS

    @classmethod
    def partners(cls, own: MeanTeacherSettings) -> tuple[Partner, ...]:
        """A network beside each student, whose weights are an average of the student's."""
        return (Partner("past", own.rate),)

    def losses(self, network: ConditionalDenoiser, batch: Batch, timer: StepTimer) -> Learned:
        """One student call; the residual of what it made comes on top."""
        target = batch.target_BCYX
        assert target is not None  # `targets` asks for endpoints
        with timer.section("student"):
            x = self.sample(network, batch.eps_BCYX, batch.condition_BP)
        with timer.section("past"), torch.no_grad():
            before = self.sample(self.networks["past"], batch.eps_BCYX, batch.condition_BP)
        with timer.section("residual"):
            parts = {
                "match": mismatch(x, target, points=self.points),
                "change": mismatch(x, before, points=self.points),
            }
            loss = parts["match"] + self.own.pull * parts["change"]
            return self.penalised(loss, parts, x, batch)
