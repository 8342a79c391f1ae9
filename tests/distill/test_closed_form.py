"""Students without loss are the maps that they should be, to rounding."""

from __future__ import annotations

import pytest

from benchmarks.closed_form import kinds, piddm_student, students
from pidscale.config import NOISES


def test_linear_students_are_the_maps_of_their_solvers() -> None:
    found = students()
    assert all(row["from_euler"] < 1e-10 for row in found["pid"])
    last, before = found["pid"][-1], found["pid"][-2]
    assert before["from_exact"] / last["from_exact"] == pytest.approx(2.0, rel=0.05)  # O(1 / N)
    assert all(row["from_map"] < 1e-10 for row in found["piddm"])
    student, other = piddm_student(18)[0], piddm_student(19)[1]
    assert float((student - other).abs().max()) > 1e-3  # another number of steps is another map


def test_all_kinds_of_noise_have_the_same_exact_map() -> None:
    rows = kinds()
    assert [row["kind"] for row in rows] == list(NOISES)
    assert all(row["heun_800"] < 2e-3 and row["heun_50"] > 3 * row["heun_800"] for row in rows)
