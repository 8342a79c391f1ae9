"""Opens generators and equations named on the command line. Knows no training stack: needs the base installation only."""

from __future__ import annotations

import argparse

from pidscale.config import UserError
from pidscale.generator.generator import Teacher
from pidscale.generator.load import load_generator, load_student
from pidscale.generator.student import Student
from pidscale.pde import build_pde
from pidscale.pde.own import look_here


def import_equation(name: str | None) -> None:
    """Import the module of the equation given by --equation. Names in cards and manifests are never imported."""
    if name is not None:
        look_here(name)
        build_pde(name)


def open_generator(asked: argparse.Namespace, teacher: str | None = None) -> Student | Teacher:
    """Load the generator of --student onto --device.

    Args:
        asked: Parsed arguments `student`, `revision`, `equation`, `head` and `device`.
        teacher: Folder of the student's teacher, if it is needed.

    Returns:
        The generator, with its teacher if one is named or is inside its folder.

    Raises:
        UserError: When the folder holds no generator, or one of another equation, or the equation has no such head.
    """
    import_equation(asked.equation)
    if teacher is None:
        generator = load_generator(asked.student, asked.device, asked.revision)
    else:
        generator = load_student(asked.student, asked.device, teacher, revision=asked.revision)
    if asked.equation not in (None, generator.pde.name):
        raise UserError(
            f"{asked.student}: a generator of {generator.pde.name}, not of {asked.equation}; name another folder"
        )
    return generator if asked.head is None else generator.with_head(asked.head)
