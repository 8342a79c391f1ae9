"""students/README.md, from the rows of benchmarks.studies.students."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.builder import number, source, table
from benchmarks.report import Row

COLUMNS = {
    "residual_l2": "residual l2",
    "residual_dual": "residual dual",
    "solution_error": "solution error",
    "swd_excess": "SWD excess",
    "train_seconds": "training s",
}


def _channels(names: list[str]) -> str:
    """Names of channels; of many, the first and the last."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"


def _line(row: Row) -> list[str]:
    name = row["pde"]
    link = f"[{name}](../docs/equations/{name}.md)"
    return [link, _channels(row["channels"]), *(number(row[key]) for key in COLUMNS), f"{row['bytes'] / 1e6:.1f} MB"]


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    rows = result["rows"]
    heads = ["student", "channels", *COLUMNS.values(), "size"]
    meta = result["meta"]
    least = min(row["n_samples"] for row in rows)
    return f"""# Students that come along

One-step generators of fields on 32 points a side, ready to use:

```python
import pidscale

student = pidscale.load_student("students/darcy")
fields = student.sample(n=16, seed=0)  # {{"permeability": [16, 32, 32], "pressure": [16, 32, 32]}}, physical units
```

{table(heads, map(_line, rows))}

Each was trained in minutes on two cores by `python -m benchmarks.studies.students`: the demo's student of Darcy flow, and
those of [the zoo](../docs/zoo.md). Each has a head of {rows[0]["head"]} solver steps ([docs/head.md](../docs/head.md));
a run of yours takes the default of its equation. They show what a student is; for work of your own, train
one on your grid and your parameters. Figures: at least {least} samples against truths that no training saw;
[docs/metrics.md](../docs/metrics.md) explains them. All are of seed 0; benchmarks/students/ has those of two other seeds of
the first three, for studies over seeds. `pidscale show students/darcy` prints a card, which has more, and
`--html` writes a page about it ([docs/student.md](../docs/student.md#its-page)).

{meta["machine"]}. {source("students")}.
"""
