"""Distil a teacher into one-step students: python launch/distill.py run.name=NAME distill.weights.dual=0.02"""

from __future__ import annotations

from entry import run

from pidscale.cluster.phase import run_phase
from pidscale.config import Settings


def main(settings: Settings) -> None:
    """Distil, or go on from the last checkpoint, and consolidate into runs/NAME/student."""
    print(f"distill: {run_phase('distill', settings) / 'student'}")


if __name__ == "__main__":
    run(main, phases=("distill",))
