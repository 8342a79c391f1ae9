"""`pidscale distill`: distil a teacher into one-step students."""

from __future__ import annotations

from pidscale.cluster.phase import run_phase
from pidscale.config import Settings


def run(settings: Settings) -> None:
    """Distil, or continue from the last checkpoint, and write runs/NAME/student."""
    print(f"distill: {run_phase('distill', settings) / 'student'}")
