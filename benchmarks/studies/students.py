"""The students that come along in students/: the demo's (Darcy) and three of benchmarks.studies.zoo, each with its head.

python -m benchmarks.studies.students [--pde darcy poisson burgers navier_stokes] [--seed 0] [--folder runs]
    [--json benchmarks/results/students.json]

Networks that are missing are trained. Each student is measured with its head, on the held-out truths of its run, and its card
keeps the row. `python -m benchmarks.pages students` writes students/README.md from those of seed 0. Students of other seeds
go to benchmarks/students/, where studies over seeds find them without training.
"""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

from safetensors.torch import load_file

from benchmarks.report import Row, circumstances, merged, options, save
from benchmarks.studies.measure import student_folder, student_row
from benchmarks.studies.tasks import train
from pidscale.generator import artifact
from pidscale.generator.card import Metrics

PDES = ("darcy", "poisson", "burgers", "navier_stokes")
HEAD = 4
KEPT = ("residual_l2", "residual_dual", "solution_error", "swd_excess", "ms_per_sample", "n_samples", "train_seconds")


def bring(pde: str, seed: int, folder: Path) -> Row:
    """Put the student of an equation and seed into its folder, and return what it is worth."""
    run = train(pde, seed, folder)
    out = student_folder(pde, seed)
    row = student_row(run, HEAD)
    source = run / "student"
    card = artifact.read_card(source)
    metrics = Metrics(row["train_seconds"], card.metrics.wait_share, row)
    artifact.write(out, load_file(source / artifact.WEIGHTS), dataclasses.replace(card, head=HEAD, metrics=metrics))
    channels = [channel.name for channel in card.channels]
    size = sum(path.stat().st_size for path in out.iterdir())
    return {"pde": pde, "channels": channels, "head": HEAD, "bytes": size} | {key: row[key] for key in KEPT}


def main() -> None:
    """Train what is missing, bring the students, and write the rows."""
    parser = options(__doc__, "students")
    parser.add_argument("--pde", nargs="+", choices=PDES, default=list(PDES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    for seed, pde in product(arguments.seed, arguments.pde):
        row = bring(pde, seed, arguments.folder.absolute())
        print(seed, row, flush=True)
        if seed == 0:
            rows = sorted(merged(arguments.json, [row], ("pde",)), key=lambda row: PDES.index(row["pde"]))
            save(arguments.json, {"rows": rows, "meta": circumstances()})


if __name__ == "__main__":
    main()
