"""Messages between a training loop and its driver: progress and lines of text, and the request to stop. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pidscale.parallel.mesh import Mesh

STOP_FILE = "STOP"


def _silent(done: int, total: int, note: str) -> None:
    """Report nothing."""


def _print(text: str) -> None:
    """Print a line on this process's own output."""
    print(text, flush=True)


@dataclass(frozen=True)
class Reporter:
    """Interface between a training loop and its driver: reports, and the request to stop.

    Attributes:
        run_folder: Folder of the run. A file STOP in it ends the loop with a checkpoint.
        progress: Called with the number of steps done, the number of all steps, and a note.
        say: Prints a line of text.
    """

    run_folder: Path
    progress: Callable[[int, int, str], None] = _silent
    say: Callable[[str], None] = _print

    def stopped(self, mesh: Mesh) -> bool:
        """Return, the same on all ranks, whether the run has to stop. One all-reduce of 8 bytes."""
        return mesh.any(mesh.first and (self.run_folder / STOP_FILE).exists())


class Stopped(Exception):
    """Raised by a loop that wrote a checkpoint and ended because it had to stop."""
