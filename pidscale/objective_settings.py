"""Base class of the settings of an objective, and objectives by name. Imports torch only where `objective_class` needs it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from pidscale.setting import UserError

USUAL = {"teacher": "denoising", "distill": "piddm"}  # the default objective of each section


@dataclass(frozen=True)
class ObjectiveSettings:
    """Base class of the settings `teacher.objective` and `distill.objective`; each objective adds its own in a subclass.

    Attributes:
        name: Name of the objective, a key of `OBJECTIVES` in `pidscale.teacher.objectives` or `pidscale.distill.objectives`.
    """

    name: str


def objective_class(section: str, name: Any) -> Any:
    """Return the class of an objective.

    Imports the objectives, and with them torch: while settings are read, only where limits.py and renamed.py need one.

    Args:
        section: `teacher` or `distill`.
        name: Name of the objective.

    Returns:
        The class.

    Raises:
        UserError: When there is no objective of this name.
    """
    objectives = importlib.import_module(f"pidscale.{section}.objectives").OBJECTIVES
    if not isinstance(name, str) or name not in objectives:
        raise UserError(f"{section}.objective.name={name!r}: expected one of {', '.join(objectives)}")
    return objectives[name]
