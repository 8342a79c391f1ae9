"""Training objectives of the teacher: one module for each, and a dict of the objectives by name."""

from __future__ import annotations

from pidscale.teacher.objectives.base import TeacherObjective
from pidscale.teacher.objectives.denoising import Denoising
from pidscale.teacher.objectives.pidm import Pidm

OBJECTIVES: dict[str, type[TeacherObjective]] = {  # keys are values of teacher.objective.name
    "denoising": Denoising,
    "pidm": Pidm,
}
