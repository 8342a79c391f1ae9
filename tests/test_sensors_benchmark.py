"""The benchmark of sensors between grid points runs with few fields, and its table shows what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import measured, run_module


@pytest.mark.slow
def test_readings_where_the_sensors_are_are_nearer_than_at_grid_points(tmp_path: Path) -> None:
    path = tmp_path / "sensors.json"
    rows = measured("studies.sensors", path, "--pde", "poisson", "--seed", "1", "--count", "4")["rows"]
    error = {row["way"]: row["error_solution"] for row in rows}
    assert error["between"] < min(error["nearest"], error["nearest, own sigma"]) < 1
    assert all(len(row["errors_source"]) == 4 and 0 < row["moved"] < 0.5 for row in rows)
    shown = run_module("pages", "sensors", "--json", str(path))
    assert shown.count("| poisson |") == 6
