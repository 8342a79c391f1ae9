"""`pidscale train`: train a teacher."""

from __future__ import annotations

from pidscale.cluster.phase import run_phase
from pidscale.config import Settings


def run(settings: Settings) -> None:
    """Train, or continue from the last checkpoint, and write runs/NAME/teacher."""
    print(f"teacher: {run_phase('teacher', settings) / 'teacher'}")
