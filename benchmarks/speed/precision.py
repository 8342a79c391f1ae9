"""Students in 16 bits: how far their samples are from those in float32, their residuals, and the time of a sample.

python -m benchmarks.speed.precision [--quick] [--json benchmarks/results/precision.json]

Each student of students/ makes the same samples in float32, bfloat16 and float16 from the same noise by turns, on one
thread of a CPU. Distances are those of the worst channel, relative to its norm: without the head, which is what the network
rounds, and with it. Residuals are medians over the samples, with the head. Times are of the processor (other work on the
machine does not change them) and medians, ratios to float32 medians of those of single turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection
from pathlib import Path

import torch

from benchmarks.report import Row, apart, circumstances, finish, options, ratios
from pidscale.generator.load import load_student
from pidscale.generator.student import Student

STUDENTS = ("darcy", "poisson", "burgers", "navier_stokes")
PRECISIONS = ("fp32", "bf16", "fp16")
SAMPLES = 64
BATCH = 32
REPEATS = 5
SEED = 3


def _times(students: dict[str, Student], repeats: int) -> dict[str, list[float]]:
    """Return milliseconds of a sample by the network alone, of each precision by turns."""
    one = students["fp32"]
    eps = one.eps(range(BATCH), SEED)
    params = one.params(range(BATCH), SEED)
    spent: dict[str, list[float]] = {name: [] for name in students}
    for turn in range(-1, repeats):  # the first is for caches
        for name, student in students.items():
            began = time.process_time()
            student.generate(eps, params)
            if turn >= 0:
                spent[name].append(1e3 * (time.process_time() - began) / BATCH)
    return spent


def rows_of(names: Collection[str], samples: int, repeats: int) -> list[Row]:
    """Return a row for each student and precision."""
    rows = []
    for name in names:
        whole = load_student(Path("students") / name)
        students = {precision: whole.with_precision(precision) for precision in PRECISIONS}
        spent = _times(students, repeats)
        bare = {p: one.join(one.sample(samples, SEED, BATCH, head=0)) for p, one in students.items()}
        for precision, student in students.items():
            fields = student.sample(samples, SEED, BATCH)
            if precision == "fp32":
                exact = student.join(fields)
            residual = student.residual(fields)
            ratio, spread = ratios(spent[precision], spent["fp32"])
            rows.append(
                {
                    "student": name,
                    "network": whole.card.architecture["kind"],
                    "head": whole.head,
                    "precision": precision,
                    "apart": apart(bare[precision], bare["fp32"]),
                    "apart_head": apart(student.join(fields), exact),
                    "residual_dual": float(residual["dual"].median()),
                    "residual_l2": float(residual["l2"].median()),
                    "ms": statistics.median(spent[precision]),
                    "ratio": ratio,
                    "spread": spread,
                }
            )
    return rows


def main() -> None:
    """Measure and write the rows."""
    parser = options(__doc__, "precision")
    parser.add_argument("--quick", action="store_true", help="one student and one repeat, for a test")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 1 if asked.quick else REPEATS
    samples = 8 if asked.quick else SAMPLES
    rows = rows_of(STUDENTS[1:2] if asked.quick else STUDENTS, samples, repeats)
    meta = circumstances(seed=SEED, repeats=repeats, samples=samples, batch=BATCH)
    finish(asked.json, {"rows": rows, "meta": meta}, "precision")


if __name__ == "__main__":
    main()
