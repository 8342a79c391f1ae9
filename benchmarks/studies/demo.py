"""What `make demo` reached: student against teacher, from the demo's own report.

python -m benchmarks.studies.demo [--run runs/demo] [--json benchmarks/results/demo.json]

`python -m benchmarks.pages demo` puts the table into the README.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.report import Row, options, processor, save


def ratios(student: Row, teacher: Row, control: Row) -> None:
    """Print what the student costs and how far it errs, relative to its teacher and to the student without the residual."""
    name = teacher["method"]
    print(f"network calls     student / {name}: {student['nfe'] / teacher['nfe']:.3f}")
    print(f"ms per sample     student / {name}: {student['ms_per_sample'] / teacher['ms_per_sample']:.3f}")
    for key in ("solution_error", "residual_dual", "residual_l2"):
        ratio = student[key] / teacher[key]
        gain = student[key] / control[key]
        print(f"{key:<17} student / {name}: {ratio:.3f}   student / student-lambda0: {gain:.3f}")


def main() -> None:
    """Read the report, print the ratios and write the rows."""
    parser = options(__doc__, "demo")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    arguments = parser.parse_args()
    report = arguments.run / "report" / "metrics.json"
    if not report.exists():
        raise SystemExit(f"error: {report}: missing; run `make demo` first")
    result = json.loads(report.read_text())
    rows = {row["method"]: row for row in result["rows"]}
    teacher = [row for name, row in rows.items() if name.startswith("teacher-heun-")][-1]
    ratios(rows["student"], teacher, rows["student-lambda0"])
    result["meta"] |= {"machine": processor(), "train_seconds": rows["student"]["train_seconds"]}
    save(arguments.json, result)


if __name__ == "__main__":
    main()
