"""Where the things of a run lie: its folder or its place in an object store, its teacher, and what its phases make.

If `run.folder` is an address, each host has a copy of the run below `run.scratch` (home.py). Knows no Ray and no equations.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from pidscale.config import Settings, UserError
from pidscale.engine.shelf import FolderShelf, Shelf, StoreShelf
from pidscale.generator.artifact import CONTROL, TEACHER
from pidscale.paths import is_address
from pidscale.records.stores.objects import Objects
from pidscale.run.home import FolderHome, Home, StoreHome

MAKES = {"teacher": (TEACHER,), "distill": ("student", CONTROL)}
"""The folders of the generators that a phase makes."""


def run_folder(settings: Settings) -> Path:
    """Return the absolute path of the folder of a run, or of its copy on this host."""
    if not is_address(settings.run.folder):
        return (Path(settings.run.folder) / settings.run.name).absolute()
    place = hashlib.sha256(settings.run.folder.rstrip("/").encode()).hexdigest()[:12]
    return Path(settings.run.scratch or _scratch()).absolute() / place / settings.run.name


def run_place(settings: Settings) -> str:
    """Return the folder or the address of a run, for messages."""
    if not is_address(settings.run.folder):
        return str(run_folder(settings))
    return f"{settings.run.folder.rstrip('/')}/{settings.run.name}"


def home_of(settings: Settings, folder: Path | None = None) -> Home:
    """Return where a run lies.

    Raises a UserError if no installed library can reach its address.

    Args:
        settings: Settings of the run.
        folder: Folder of the run, or of its copy on this host; None: the one that the settings name on this host.

    Returns:
        The place.
    """
    own = folder or run_folder(settings)
    if not is_address(settings.run.folder):
        return FolderHome(own)
    return StoreHome(Objects(run_place(settings), settings.data.patience, "run.folder"), own)


def open_shelf(settings: Settings, folder: Path, phase: str) -> Shelf:
    """Return the place of the checkpoints of a phase.

    Args:
        settings: Settings of the run.
        folder: Folder of the run, or of its copy on this host.
        phase: `teacher` or `distill`.

    Returns:
        The place.
    """
    own = folder / "checkpoints" / phase
    if not is_address(settings.run.folder):
        return FolderShelf(own)
    address = f"{run_place(settings)}/checkpoints/{phase}"
    return StoreShelf(Objects(address, settings.data.patience, "run.folder"), own)


def teacher_folder(settings: Settings, folder: Path) -> Path:
    """Return the folder of the teacher of a run's students: distill.teacher, or the run's own teacher."""
    return Path(settings.distill.teacher or folder / TEACHER).absolute()


def fetch_teacher(settings: Settings, folder: Path) -> Path:
    """Return the folder of the teacher of a run's students, which is fetched first if the run lies in an object store."""
    if not settings.distill.teacher:
        home_of(settings, folder).pull_generator(TEACHER)
    return teacher_folder(settings, folder)


def made_by(phase: str, folder: Path) -> Path:
    """Return the folder of the generator that a phase makes; it holds a card once the phase is finished."""
    return folder / MAKES[phase][0]


def is_made(phase: str, settings: Settings) -> bool:
    """Return whether a phase has made its generator, which is fetched first if the run lies in an object store."""
    home = home_of(settings)
    return all([home.pull_generator(name) for name in MAKES[phase]][:1])


def _scratch() -> Path:
    """Return the folder for copies of runs that no setting names: one of this user in the temporary folder."""
    folder = Path(tempfile.gettempdir()) / f"pidscale-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user; name a folder of your own with run.scratch")
    return folder
