"""Messages between a training loop and its driver: progress, lines of text, and the driver's requests. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pidscale.parallel.mesh import Mesh
from pidscale.records.lock import Ownership


class Request(StrEnum):
    """What a driver asks of a training loop."""

    NOTHING = "nothing"
    GROW = "grow"  # stop at the next checkpoint, because there is room for more workers
    STOP = "stop"  # stop now, with a checkpoint


def _silent(done: int, total: int, note: str) -> None:
    """Report nothing."""


def nothing(path: Path) -> None:
    """Keep nothing: the folder is on storage that outlives the host."""


def _print(text: str) -> None:
    """Print a line on this process's own output."""
    print(text, flush=True)


@dataclass(frozen=True)
class Reporter:
    """Interface between a training loop and its driver: reports and requests.

    Attributes:
        progress: Called with the number of steps done, the number of all steps, and a note.
        say: Prints a line of text.
        asked: Returns the driver's latest request; called on the first rank.
        keep: Called with a file of the run's folder that must outlive this host; called on the first rank.
        owner: The driver, which holds the folder of the run; None for a loop without one.
    """

    progress: Callable[[int, int, str], None] = _silent
    say: Callable[[str], None] = _print
    asked: Callable[[], Request] = lambda: Request.NOTHING
    keep: Callable[[Path], None] = nothing
    owner: Ownership | None = None

    def stopped(self, mesh: Mesh, at_checkpoint: bool = False) -> bool:
        """Return, the same on all ranks, whether the loop has to stop here. One all-reduce of 8 bytes.

        Args:
            mesh: The mesh of ranks.
            at_checkpoint: Whether a checkpoint is due at this step anyway.

        Returns:
            Whether it has to stop.
        """
        asked = self.asked() if mesh.first else Request.NOTHING
        return mesh.any(asked is Request.STOP or (at_checkpoint and asked is Request.GROW))


class Stopped(Exception):
    """Raised by a loop that wrote a checkpoint and ended because it had to stop."""
