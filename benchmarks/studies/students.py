"""The students that come along in students/: the demo's (Darcy) and three of benchmarks.studies.zoo, each with its head.

python -m benchmarks.studies.students [--pde darcy poisson burgers navier_stokes] [--folder runs] [--out students]
    [--json benchmarks/results/students.json]

Networks that are missing are trained. Each student is measured with its head, on the held-out truths of its run, and its card
keeps the row. `python -m benchmarks.pages students` writes students/README.md.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from safetensors.torch import load_file

from benchmarks.report import Row, circumstances, finish, merged, options, save
from benchmarks.studies.measure import student_row
from benchmarks.studies.tasks import train
from pidscale.generator import artifact
from pidscale.generator.card import Metrics

PDES = ("darcy", "poisson", "burgers", "navier_stokes")
HEAD = 4
KEPT = ("residual_l2", "residual_dual", "solution_error", "swd_excess", "ms_per_sample", "n_samples", "train_seconds")


def bring(pde: str, folder: Path, out: Path) -> Row:
    """Put the student of an equation into its folder, and return what it is worth."""
    run = train(pde, 0, folder)
    row = student_row(run, HEAD)
    source = run / "student"
    card = artifact.read_card(source)
    metrics = Metrics(row["train_seconds"], card.metrics.wait_share, row)
    artifact.write(
        out / pde, load_file(source / artifact.WEIGHTS), dataclasses.replace(card, head=HEAD, metrics=metrics)
    )
    channels = [channel.name for channel in card.channels]
    size = sum(path.stat().st_size for path in (out / pde).iterdir())
    return {"pde": pde, "channels": channels, "head": HEAD, "bytes": size} | {key: row[key] for key in KEPT}


def main() -> None:
    """Train what is missing, bring the students, and write the rows."""
    parser = options(__doc__, "students")
    parser.add_argument("--pde", nargs="+", choices=PDES, default=list(PDES))
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("students"))
    arguments = parser.parse_args()
    for pde in arguments.pde:
        rows = merged(arguments.json, [bring(pde, arguments.folder.absolute(), arguments.out)], ("pde",))
        result = {"rows": sorted(rows, key=lambda row: PDES.index(row["pde"])), "meta": circumstances()}
        save(arguments.json, result)
    finish(arguments.json, result, "students")


if __name__ == "__main__":
    main()
