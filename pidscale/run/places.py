"""Where the things of a run lie: its folder, its teacher, and what its phases make. Knows no Ray and no equations."""

from __future__ import annotations

from pathlib import Path

from pidscale.config import Settings
from pidscale.generator.artifact import CONTROL, TEACHER

MAKES = {"teacher": (TEACHER,), "distill": ("student", CONTROL)}
"""The folders of the generators that a phase makes."""


def run_folder(settings: Settings) -> Path:
    """Return the folder of a run as an absolute path, since workers have other working directories."""
    return (Path(settings.run.folder) / settings.run.name).absolute()


def teacher_folder(settings: Settings, folder: Path) -> Path:
    """Return the folder of the teacher of a run's students: distill.teacher, or the run's own teacher."""
    return Path(settings.distill.teacher or folder / TEACHER).absolute()


def made_by(phase: str, folder: Path) -> Path:
    """Return the folder of the generator that a phase makes; it holds a card once the phase is finished."""
    return folder / MAKES[phase][0]
