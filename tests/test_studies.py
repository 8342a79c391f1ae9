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


def test_the_table_side_by_side_has_the_means_of_its_parts_and_a_summary(tmp_path: Path) -> None:
    def sampled(method: str, seed: int, error: float, **own: Any) -> dict[str, Any]:
        where = {"equation": "darcy", "seed": seed, "task": "sample", "method": method, "trained": "piddm", "nfe": 1}
        numbers = {"solution_error": error, "residual_dual": 0.5, "residual_l2": 0.5, "swd_excess": 0.02}
        return where | numbers | {"ms_per_sample": 1.0, "train_seconds": 60.0, "commit": "c" * 40} | own

    rows = []
    for seed, error in ((0, 0.2), (1, 0.4)):
        rows += [
            sampled("trivial", seed, 1.0, trained="none"),
            sampled("teacher-18", seed, 0.9, trained="teacher", nfe=35, ms_per_sample=31.0, train_seconds=30.0),
            sampled("piddm", seed, error),
            sampled("piddm+solve", seed, 0.0, ms_per_sample=2.0),
            sampled("eci", seed, 0.7, trained="flow", nfe=100),
            sampled("eci+head-4", seed, 0.1, trained="flow", nfe=100),
            {"equation": "darcy", "seed": seed, "task": "forward", "method": "eci", "trained": "flow", "nfe": 100}
            | {"error_pressure": error, "residual_dual": 0.1, "ms_per_sample": 1.0, "commit": "c" * 40},
        ]
    part = {"compare": {"students": {"piddm": []}}}
    meta = {"parts": {"darcy-0": part, "darcy-1": part}, "machine": "m", "hours": 1.5}
    path = tmp_path / "papers.json"
    path.write_text(json.dumps({"rows": rows, "failed": [], "meta": meta}))
    page = run_module("pages", "side_by_side", "--json", str(path))
    assert "## darcy, seeds 0, 1" in page and "1.5 hours on m" in page
    assert "| piddm | 1 | 0.5 | 0.5 | 0.3 ± 0.1 | 0.02 | 1 | 60 |" in page
    assert "| piddm | 30 | 1,000 | never |" in page  # 30 s beside the teacher's, of which a sample saves 30 ms
    assert "| eci | 0.3 ± 0.1 | 100 |" in page
    summary = run_module("pages", "summary", "--json", str(path))
    names = [line.split(" | ")[1] for line in summary.splitlines() if line.startswith("| darcy |")]
    assert names == ["trivial", "teacher-18", "piddm", "eci", "eci+head-4"]
