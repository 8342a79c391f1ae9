"""`pidscale demo`: run all stages in one command: shards, teacher, students and report."""

from __future__ import annotations

import time

from pidscale.app import evaluate, make_shards
from pidscale.cluster.phase import run_phase
from pidscale.compare.questions import check_truths
from pidscale.config import Settings
from pidscale.dataset.problem import open_problem
from pidscale.paths import absolute
from pidscale.run.places import run_folder


def run(settings: Settings) -> None:
    """Run every stage; each stage continues from existing results."""
    began = time.monotonic()
    settings = absolute(settings)
    make_shards.run(settings)
    check_truths(settings, open_problem(settings.pde, settings.data))  # now, and not after the training
    run_phase("teacher", settings)
    run_phase("distill", settings)
    evaluate.run(settings)
    folder = run_folder(settings)
    print(f"\nfinished in {(time.monotonic() - began) / 60:.1f} minutes; all of it is in {folder}")
    print(f"watch it again:   tensorboard --logdir {folder / 'tb'}")
    print("use the student:")
    print("    import pidscale")
    print(f'    student = pidscale.load_student("{folder / "student"}")')
    print("    fields = student.sample(n=16, seed=0)   # channel name -> [16, Y, X] in physical units")
