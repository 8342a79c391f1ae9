"""Whatever happens to its files, a set is read correctly or refused in one line that names one of them."""

from __future__ import annotations

from pathlib import Path

from tests.commands import measured

OUTCOMES = {"right", "refused", "message", "wrong", "crashed", "hung"}


def test_random_damage_is_read_right_or_refused(tmp_path: Path) -> None:
    result = measured("proofs.fuzz", tmp_path / "fuzz.json", "--cases", "2200", "--seed", "7")
    counts = {row["damage"]: row for row in result["rows"]}
    assert not result["broken"]
    assert len(counts) == 19 and sum(row[outcome] for row in counts.values() for outcome in OUTCOMES) == 2200
    assert all(row["refused"] for row in counts.values())
    for kind in ("flip a bit", "edit index and hash", "edit to anything", "edit data and hashes", "while it is open"):
        assert counts[kind]["right"], f"{kind}: none was read to its end"


def test_what_a_reader_without_checks_accepts_is_seen(tmp_path: Path) -> None:
    found = measured("proofs.fuzz", tmp_path / "fuzz.json", "--quick", "--seed", "7", "--unchecked", code=1)
    counts = {row["damage"]: row for row in found["rows"]}
    assert counts["swap tars"]["wrong"] > 5 and counts["flip a bit"]["wrong"]


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    found = measured("proofs.fuzz", tmp_path / "fuzz.json", "--cases", "5", "--limit", "0.0001", code=1)
    assert sum(row["hung"] for row in found["rows"]) == 5
