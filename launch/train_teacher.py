"""Train a teacher: python launch/train_teacher.py run.name=NAME model=unet_small cluster.zero_stage=2"""

from __future__ import annotations

from entry import run

from pidscale.cluster.phase import run_phase
from pidscale.config import Settings


def main(settings: Settings) -> None:
    """Train, or go on from the last checkpoint, and consolidate into runs/NAME/teacher."""
    print(f"teacher: {run_phase('teacher', settings) / 'teacher'}")


if __name__ == "__main__":
    run(main, phases=("teacher",))
