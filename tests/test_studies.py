"""Pages from rows of several seeds show their means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.commands import run_module


def row(method: str, error: float, seed: int = 0) -> dict[str, Any]:
    numbers = dict.fromkeys(("residual_dual", "residual_l2", "swd_excess", "boundary_rms", "ms_per_sample"), 1.0)
    own = {"method": method, "nfe": 1, "solution_error": error, "variance_ratio": {"u": error}, "seeds": [seed, 1000]}
    return numbers | own | {"n_samples": 8}


def test_the_table_of_the_demo_says_how_far_its_seeds_lie_apart(tmp_path: Path) -> None:
    student = row("student", 0.4) | {"spread": {"solution_error": 0.2}}
    meta = {"machine": "m", "versions": {"torch": "t", "commit": "c"}, "train_seconds": 1.0}
    path = tmp_path / "demo.json"
    path.write_text(json.dumps({"rows": [row("truth", 0.0), student], "runs": [1, 2, 3], "meta": meta}))
    page = run_module("pages", "demo", "--json", str(path))
    assert "Means of 3 runs" in page and "solution error 0.2" in page


def test_the_page_of_heads_has_the_means_over_seeds(tmp_path: Path) -> None:
    rows = [
        row("s", error) | {"pde": "poisson", "seed": seed, "weight": weight, "trained_head": head, "steps": steps}
        for seed, error in ((0, 0.2), (1, 0.4))
        for weight in (0.0, 1.0)
        for head in (0, 4)
        for steps in (0, 4)
    ]
    path = tmp_path / "heads.json"
    path.write_text(json.dumps({"rows": rows, "meta": {"machine": "m"}}))
    page = run_module("pages", "heads", "--json", str(path))
    lines = [line for line in page.splitlines() if line.startswith(("| 0 |", "| 4 |"))]
    assert len(lines) == 4 and all("| 0.3 |" in line for line in lines) and "seeds 0, 1" in page
