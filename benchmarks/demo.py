"""What `make demo` reached: student against teacher, from the demo's own report; rebuilds the README's table.

python -m benchmarks.demo [--run runs/demo] [--json benchmarks/results/demo.json] [--readme README.md]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.report import options, processor, save

BEGIN, END = "<!-- results: rebuilt by", "<!-- end of results -->"
COLUMNS = {
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "boundary_rms": "boundary",
    "solution_error": "solution error",
    "swd_excess": "SWD excess",
    "ms_per_sample": "ms / sample",
}


def markdown(result: dict[str, Any]) -> str:
    """The rows as a Markdown table, with the circumstances under it."""
    channels = list(result["rows"][0]["variance_ratio"])
    head = ["method", "calls", *COLUMNS.values(), *(f"variance of {c}" for c in channels)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in result["rows"]:
        values = [f"{row[k]:.2g}" if row[k] < 0.01 else f"{row[k]:.3g}" for k in COLUMNS]
        values += [f"{row['variance_ratio'][c]:.2f}" for c in channels]
        name = f"**{row['method']}**" if row["method"] == "student" else row["method"]
        lines.append(f"| {name} | {row['nfe']} | " + " | ".join(values) + " |")
    first, meta = result["rows"][0], result["meta"]
    versions = meta["versions"]
    lines.append(
        f"\n{first['n_samples']} samples a row, seeds {first['seeds']}; {meta['machine']}, torch {versions['torch']},"
    )
    lines.append(f"commit {versions['commit'][:12]}; training of teacher and student {meta['train_seconds']:.0f} s.")
    lines.append("Source: benchmarks/results/demo.json.")
    return "\n".join(lines)


def main() -> None:
    """Read the report, print the ratios, write JSON and README."""
    parser = options(__doc__, "demo")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    arguments = parser.parse_args()
    report = arguments.run / "report" / "metrics.json"
    if not report.exists():
        raise SystemExit(f"error: {report}: missing; run `make demo` first")
    result = json.loads(report.read_text())
    rows = {row["method"]: row for row in result["rows"]}
    teacher = [row for name, row in rows.items() if name.startswith("teacher-heun-")][-1]
    student, twin = rows["student"], rows["student-lambda0"]
    print(f"network calls     student / {teacher['method']}: {student['nfe'] / teacher['nfe']:.3f}")
    print(f"ms per sample     student / {teacher['method']}: {student['ms_per_sample'] / teacher['ms_per_sample']:.3f}")
    for key in ("solution_error", "residual_dual", "residual_l2"):
        ratio, gain = student[key] / teacher[key], student[key] / twin[key]
        print(f"{key:<17} student / {teacher['method']}: {ratio:.3f}   student / student-lambda0: {gain:.3f}")
    result["meta"] |= {"machine": processor(), "train_seconds": student["train_seconds"]}
    save(arguments.json, result)
    text = arguments.readme.read_text()
    start, stop = text.index("\n", text.index(BEGIN)) + 1, text.index(END)
    arguments.readme.write_text(text[:start] + "\n" + markdown(result) + "\n\n" + text[stop:])


if __name__ == "__main__":
    main()
