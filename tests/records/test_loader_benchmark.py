"""benchmarks/loader.py with little data: every contestant delivers the same numbers, and the file holds the results."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_contestants_deliver_the_same_numbers(tmp_path):
    command = [sys.executable, "-m", "benchmarks.loader", "--gib", "0.01", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "loader.json"), "--page", str(tmp_path / "loader.md")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "loader.json").read_text())
    assert set(result) == {"rows", "ratios", "bytes", "meta"}
    assert {"machine", "versions", "repeats", "seeds"} <= set(result["meta"])
    for case in ("8 MiB", "64 KiB"):
        rows = [row for row in result["rows"] if row["case"] == case]
        assert len({row["sum"] for row in rows}) == 1 and len({row["contestant"] for row in rows}) == len(rows) > 20
        assert all(row["fields_per_second"] > 0 and len(row["runs"]) == 1 for row in rows)
        assert {"checked to decode()", "unchecked to best setting"} <= set(result["ratios"][case])
        parts = [row for row in result["bytes"] if row["case"] == case]
        assert len(parts) == 7 and all(abs(row["share"] * row["space"] - 1) < 0.05 for row in parts)
