"""What the demo reaches with several seeds: student against teacher, from the reports of its runs.

python -m benchmarks.studies.demo [--seed 0 1 2] [--folder runs] [--json benchmarks/results/demo.json]

Each seed is a run of launch/demo.py with nothing else set; that of seed 0 is the run of `make demo`. All share one shard set.
A finished run is not repeated, nor is its report if it is of this commit. `rows` has the means over seeds and half the range
of each figure (`spread`), `runs` the rows of each seed. `python -m benchmarks.pages demo results` puts the table into
docs/demo.md and its main rows into the README.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import Row, circumstances, options, processor, save
from benchmarks.studies.measure import launch

KEYS = ("solution_error", "residual_dual", "residual_l2", "swd_excess")


def train(seed: int, folder: Path) -> Path:
    """Run the demo of a seed where it is missing, and return the folder of the run."""
    name = "demo" if seed == 0 else f"demo-{seed}"
    if not _is_of_today(folder / name / "report" / "metrics.json"):
        launch("demo", f"run.folder={folder}", f"run.name={name}", f"run.seed={seed}")
    return folder / name


def _is_of_today(report: Path) -> bool:
    """Return whether there is a report of this commit."""
    if not report.exists():
        return False
    commit: str = circumstances()["versions"]["commit"]
    return bool(json.loads(report.read_text())["meta"]["versions"]["commit"] == commit)


def mean(values: list[Any]) -> Any:
    """Return the mean of numbers, or of dicts of numbers by key; the first value of anything else."""
    if isinstance(values[0], dict) and all(isinstance(value, (int, float)) for value in values[0].values()):
        return {key: mean([one[key] for one in values]) for key in values[0]}
    if all(isinstance(value, float) for value in values):
        return statistics.fmean(values)
    return values[0]


def over_seeds(runs: list[list[Row]]) -> list[Row]:
    """Return the rows of several runs as one row for each method."""
    rows = []
    for same in zip(*runs, strict=True):
        names = {row["method"] for row in same}
        if len(names) > 1:
            raise SystemExit(
                f"error: rows of the runs differ: {', '.join(sorted(names))}; run all seeds by one version"
            )
        row = {key: mean([one[key] for one in same]) for key in same[0]}
        row["spread"] = {key: (max(one[key] for one in same) - min(one[key] for one in same)) / 2 for key in KEYS}
        row["seeds"] = [one["seeds"][0] for one in same] + same[0]["seeds"][1:]
        rows.append(row)
    return rows


def ratios(student: Row, teacher: Row, control: Row) -> None:
    """Print what the student costs and how far it errs, relative to its teacher and to the student without the residual."""
    name = teacher["method"]
    print(f"network calls     student / {name}: {student['nfe'] / teacher['nfe']:.3f}")
    print(f"ms per sample     student / {name}: {student['ms_per_sample'] / teacher['ms_per_sample']:.3f}")
    for key in KEYS:
        ratio = student[key] / teacher[key]
        gain = student[key] / control[key]
        print(f"{key:<17} student / {name}: {ratio:.3f}   student / student-lambda0: {gain:.3f}")


def main() -> None:
    """Run what is missing, print the ratios and write the rows."""
    parser = options(__doc__, "demo")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    reports = []
    for seed in arguments.seed:
        run = train(seed, arguments.folder.absolute())
        reports.append(json.loads((run / "report" / "metrics.json").read_text()))
    rows = over_seeds([report["rows"] for report in reports])
    by_name = {row["method"]: row for row in rows}
    teacher = [row for name, row in by_name.items() if name.startswith("teacher-heun-") and "+" not in name][-1]
    ratios(by_name["student"], teacher, by_name["student-lambda0"])
    meta = reports[0]["meta"] | {"machine": processor(), "train_seconds": by_name["student"]["train_seconds"]}
    runs = [{"seed": seed, "rows": report["rows"]} for seed, report in zip(arguments.seed, reports, strict=True)]
    save(arguments.json, {"rows": rows, "runs": runs, "meta": meta})


if __name__ == "__main__":
    main()
