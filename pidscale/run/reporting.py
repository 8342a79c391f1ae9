"""What a loop tells the world outside, and what it may be told: progress, and a request to stop. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pidscale.parallel.mesh import Mesh

STOP_FILE = "STOP"


def _silent(done: int, total: int, note: str) -> None:
    """Tell nobody."""


def _print(text: str) -> None:
    """Tell this process's own output."""
    print(text, flush=True)


@dataclass(frozen=True)
class Reporter:
    """progress(done, total, note) and say(text) reach the terminal; a stop file ends the loop with a checkpoint."""

    run_folder: Path
    progress: Callable[[int, int, str], None] = _silent
    say: Callable[[str], None] = _print

    def stopped(self, mesh: Mesh) -> bool:
        """Whether the run was asked to stop; all ranks learn the same. One all-reduce of 8 bytes."""
        return mesh.any(mesh.first and (self.run_folder / STOP_FILE).exists())


class Stopped(Exception):
    """The loop wrote a checkpoint and returned because it was asked to."""
