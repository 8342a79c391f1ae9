"""The benchmark of sizes runs with the least of everything, and its page shows what it found."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands import measured, run_module


def test_plans_and_steps_are_measured_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    result = measured("speed.sizes", path, "--quick")
    assert {row["model"] for row in result["plans"]} == {"unet", "fno"}
    assert all(row["distill"] > row["teacher"] > 2**20 for row in result["plans"])
    (step,) = result["steps"]
    assert all(step[key] > 0 for key in ("teacher_seconds", "student_seconds", "call_ms"))
    assert json.loads(path.read_text())["meta"]["repeats"] == 1
    assert "`fno_tiny`" in run_module("pages", "sizes_plans", "--json", str(path))
    assert "16 x 16" in run_module("pages", "sizes_steps", "--json", str(path))
