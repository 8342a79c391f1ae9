"""Training objectives of the teacher: one module for each, and a dict of the objectives by name."""

from __future__ import annotations

from pidscale.teacher.objectives.base import TeacherObjective
from pidscale.teacher.objectives.denoising import Denoising
from pidscale.teacher.objectives.pbfm import Pbfm
from pidscale.teacher.objectives.pidm import Pidm
from pidscale.teacher.objectives.pirf import Pirf
from pidscale.teacher.objectives.regression import Regression

OBJECTIVES: dict[str, type[TeacherObjective]] = {  # keys are values of teacher.objective.name
    "denoising": Denoising,
    "pidm": Pidm,
    "pbfm": Pbfm,
    "pirf": Pirf,
    "regression": Regression,
}
