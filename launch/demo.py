"""The whole way in one command: shards, teacher, one-step students, report. make demo, or python launch/demo.py"""

from __future__ import annotations

import time

import evaluate
import make_shards
from entry import run

from pidscale.cluster.phase import run_phase
from pidscale.config import Settings
from pidscale.paths import absolute
from pidscale.run.phases import run_folder


def main(settings: Settings) -> None:
    """Each stage goes on from what is there already."""
    began = time.monotonic()
    settings = absolute(settings)
    make_shards.main(settings)
    run_phase("teacher", settings)
    run_phase("distill", settings)
    evaluate.main(settings)
    folder = run_folder(settings)
    print(f"\nfinished in {(time.monotonic() - began) / 60:.1f} minutes; all of it is in {folder}")
    print(f"watch it again:   tensorboard --logdir {folder / 'tb'}")
    print("use the student:")
    print("    import pidscale")
    print(f'    student = pidscale.load_student("{folder / "student"}")')
    print("    fields = student.sample(n=16, seed=0)   # channel name -> [16, Y, X] in physical units")


if __name__ == "__main__":
    run(main, "demo")
