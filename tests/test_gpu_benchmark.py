"""The benchmark of one device runs, on the CPU with the least of everything and on a GPU where there is one."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.gpu import measure, page
from pidscale.pde import PDES

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_every_part_is_measured(device: str) -> None:
    result = measure(torch.device(device), [16], "tiny", repeats=1, tiny=True)
    rows = result["rows"]
    parts = {(row["part"], row["model"], row["precision"]) for row in rows}
    for kind in ("unet tiny", "fno tiny"):
        assert {(part, kind, p) for part in ("teacher", "rollout", "student") for p in ("fp32", "bf16")} <= parts
    assert {("residual", name, "fp32") for name in PDES} <= parts and len(parts) == len(rows)
    for row in rows:
        values = [row["fields_per_second"], row.get("share", row.get("ms"))]
        assert all(math.isfinite(v) and v > 0 for v in values), row
    assert page(result).count("\n|") == len(rows) + 2
