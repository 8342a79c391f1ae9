"""The benchmark of programs runs with the least of everything, and its table shows what it found."""

from __future__ import annotations

from pathlib import Path

from tests.commands import measured, run_module


def test_programs_are_measured_beside_torch_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "programs.json"
    rows = measured("speed.programs", path, "--quick")["rows"]
    assert [(row["head"], row["batch"]) for row in rows] == [(4, 1), (4, 16), (0, 1), (0, 16)]
    assert all(row[f"{form}_apart"] < 1e-5 for row in rows for form in ("pt2", "onnx"))
    assert all(row[f"{form}_ms"] > 0 for row in rows for form in ("torch", "pt2", "onnx"))
    shown = run_module("pages", "programs", "--json", str(path))
    assert shown.count("| poisson, UNet |") == 4
