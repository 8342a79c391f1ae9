"""Pictures as PNG files. Matplotlib is imported by the first picture, since a base installation may lack it."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pidscale.config import UserError
from pidscale.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_class(where: str | Path, otherwise: str = "or omit --picture") -> type[Figure]:
    """Return the class of all figures; asked for early, it refuses before anything is computed for a picture.

    A notebook shows such a figure where it is the last value of a cell, also if pyplot was never imported, and shows it once.

    Args:
        where: What asks for a picture, for the message: the file to write, or a function.
        otherwise: What to do without matplotlib, for the message.

    Returns:
        The class, which has all that matplotlib's Figure has.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        return _notebook_figure()
    except ImportError:
        raise UserError(f"{where}: pictures need matplotlib; pip install matplotlib, {otherwise}") from None


@cache
def _notebook_figure() -> type[Figure]:
    """Return matplotlib's class of figures with what a notebook calls to show one."""
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            return png_bytes(self)

    return NotebookFigure


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as the contents of a PNG file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure.

    Args:
        path: The file to write.
        figure: The figure.

    Raises:
        UserError: The file cannot be written.
    """
    data = png_bytes(figure)
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None
