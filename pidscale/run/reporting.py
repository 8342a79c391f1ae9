"""Messages between a training loop and its driver: progress and lines of text, and requests to stop. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pidscale.parallel.mesh import Mesh
from pidscale.records.lock import Owner

STOP_FILE = "STOP"  # stop now, with a checkpoint
GROW_FILE = "GROW"  # stop at the next checkpoint, because there is room for more workers


def _silent(done: int, total: int, note: str) -> None:
    """Report nothing."""


def _print(text: str) -> None:
    """Print a line on this process's own output."""
    print(text, flush=True)


@dataclass(frozen=True)
class Reporter:
    """Interface between a training loop and its driver: reports, and the request to stop.

    Attributes:
        run_folder: Folder of the run. A file STOP in it ends the loop with a checkpoint, a file GROW at its next checkpoint.
        progress: Called with the number of steps done, the number of all steps, and a note.
        say: Prints a line of text.
        owner: The driver, which holds the folder; None for a loop without one.
    """

    run_folder: Path
    progress: Callable[[int, int, str], None] = _silent
    say: Callable[[str], None] = _print
    owner: Owner | None = None

    def stopped(self, mesh: Mesh, at_checkpoint: bool = False) -> bool:
        """Return, the same on all ranks, whether the loop has to stop here. One all-reduce of 8 bytes.

        Args:
            mesh: The mesh of ranks.
            at_checkpoint: Whether a checkpoint is due at this step anyway.

        Returns:
            Whether it has to stop.
        """
        names = (STOP_FILE, GROW_FILE) if at_checkpoint else (STOP_FILE,)
        return mesh.any(mesh.first and any((self.run_folder / name).exists() for name in names))


class Stopped(Exception):
    """Raised by a loop that wrote a checkpoint and ended because it had to stop."""
