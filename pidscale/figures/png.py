"""Pictures as PNG files. Matplotlib is imported by the first picture, since a base installation may lack it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from pidscale.config import UserError
from pidscale.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_class(path: Path) -> type[Figure]:
    """Return the class that draws; asked for early, it refuses before anything is computed for the picture.

    Args:
        path: The file that is to be written.

    Returns:
        matplotlib's class of figures.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError(f"{path}: pictures need matplotlib; pip install matplotlib, or omit --picture") from None
    return Figure


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure.

    Args:
        path: The file to write.
        figure: The figure.

    Raises:
        UserError: The file cannot be written.
    """
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    try:
        write_atomic(path, data.getvalue())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None
