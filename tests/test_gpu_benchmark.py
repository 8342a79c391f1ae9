"""The benchmark of one device runs, on the CPU with the least of everything and on a GPU where there is one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from pidscale.pde import PDES
from tests.commands import measured, run_module

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_every_part_is_measured(device: str, tmp_path: Path) -> None:
    rows = measured("speed.gpu", tmp_path / "gpu.json", "--quick", "--device", device)["rows"]
    parts = {(row["part"], row["model"], row["precision"]) for row in rows}
    for kind in ("unet tiny", "fno tiny"):
        assert {(part, kind, p) for part in ("teacher", "rollout", "student") for p in ("fp32", "bf16")} <= parts
    assert {("residual", name, "fp32") for name in PDES} <= parts and len(parts) == len(rows)
    for row in rows:
        values = [row["fields_per_second"], row.get("share", row.get("ms"))]
        assert all(math.isfinite(v) and v > 0 for v in values), row
    page = run_module("pages", "gpu", "--json", str(tmp_path / "gpu.json"))
    assert page.count("\n|") == len(rows) + 2
