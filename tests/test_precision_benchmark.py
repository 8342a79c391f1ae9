"""The benchmark of precisions runs with the least of everything, and its table shows what it found."""

from __future__ import annotations

from pathlib import Path

from tests.commands import measured, run_module


def test_precisions_are_measured_beside_float32_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "precision.json"
    rows = {row["precision"]: row for row in measured("speed.precision", path, "--quick")["rows"]}
    assert list(rows) == ["fp32", "bf16", "fp16"]
    assert 0 == rows["fp32"]["apart"] < 1e-4 < rows["fp16"]["apart"] < rows["bf16"]["apart"] < 0.02
    assert all(row["residual_dual"] < 1e-4 and row["ms"] > 0 for row in rows.values())
    shown = run_module("pages", "precision", "--json", str(path))
    assert shown.count("| poisson, UNet |") == 3
