"""`pidscale learn-start`: learn where the searches of a student start. Needs the base installation only."""

from __future__ import annotations

import argparse

from pidscale.app.opening import import_equation
from pidscale.app.output import Progress
from pidscale.config import UserError
from pidscale.generator.load import load_student
from pidscale.generator.tasks.learn_start import Learning, learn_start
from pidscale.generator.tasks.start import FOLDER, write_start


def run(asked: argparse.Namespace) -> None:
    """Learn a start network and write it into the folder of its student.

    Args:
        asked: Parsed arguments.

    Raises:
        UserError: When an argument is wrong, there is a start network, or the folder cannot be written.
    """
    import_equation(asked.equation)
    progress = Progress("learn-start")
    learning = Learning(asked.steps, asked.batch, asked.rate, asked.seed, progress)
    folder = asked.student
    if (folder / FOLDER).exists() and not asked.force:
        raise UserError(f"{folder / FOLDER}: there is one; --force replaces it")
    student = load_student(folder, asked.device, with_start=False)
    start = learn_start(student, learning)
    progress.close()
    try:
        write_start(folder, start)
    except OSError as error:
        raise UserError(f"{folder / FOLDER}: {error.strerror or error}; check permissions and free space") from None
    print(
        f"{folder / FOLDER}: {asked.steps} steps, {start.card.seconds:.0f} s; the fields of its guesses have an error of "
        f"{start.card.error:.2f} where nothing is known, the mean field 1.00"
    )
