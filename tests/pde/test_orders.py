"""The residual of smooth fields nears its continuous value at the order that each scheme states."""

from __future__ import annotations

from pathlib import Path

import pytest

from pidscale.pde import PDES
from tests.commands import measured

EXACT = {"advection_diffusion", "heat", "wave"}  # by waves that each go their own way


def test_the_residual_of_smooth_fields_falls_at_the_order_of_the_scheme(tmp_path: Path) -> None:
    rows = {row["pde"]: row for row in measured("proofs.manufactured", tmp_path / "orders.json")["rows"]}
    assert set(rows) == set(PDES)
    assert {name for name, row in rows.items() if row["order"] is None} == EXACT
    for name in rows.keys() - EXACT:
        found = (rows[name]["order"], rows[name]["order_dual"])
        assert found == pytest.approx([rows[name]["expected_order"]] * 2, abs=0.3), name
