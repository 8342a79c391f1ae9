"""The benchmark of readers with little data: all deliver the same numbers, and the file holds what was measured."""

from __future__ import annotations

from pathlib import Path

from tests.commands import measured


def test_contestants_deliver_the_same_numbers(tmp_path: Path) -> None:
    result = measured("speed.loader", tmp_path / "loader.json", "--gib", "0.01", "--repeats", "1")
    assert set(result) == {"rows", "ratios", "bytes", "meta"}
    assert {"repeats", "seeds"} <= set(result["meta"])
    for case in ("8 MiB", "64 KiB"):
        rows = [row for row in result["rows"] if row["case"] == case]
        assert len({row["sum"] for row in rows}) == 1 and len({row["contestant"] for row in rows}) == len(rows) > 20
        assert all(row["fields_per_second"] > 0 and len(row["runs"]) == 1 for row in rows)
        assert {"checked to decode()", "unchecked to best setting"} <= set(result["ratios"][case])
        parts = [row for row in result["bytes"] if row["case"] == case]
        assert len(parts) == 7 and all(abs(row["share"] * row["space"] - 1) < 0.05 for row in parts)
