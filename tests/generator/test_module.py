"""A student as a module: the same fields, and an exported program that needs torch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pidscale.generator.load import load_student
from tests.generator.made import write_generator

ALONE = """
import sys, torch
program = torch.export.load("student.pt2").module()
torch.save(program(*torch.load("asked.pt")), "made.pt")
assert not any(name.startswith("pidscale") for name in sys.modules)
"""


@pytest.mark.parametrize(("equation", "network", "head"), [("darcy", "unet", 4), ("heat", "fno", 2)])
def test_an_exported_student_makes_the_same_fields_without_the_package(
    tmp_path: Path, equation: str, network: str, head: int
) -> None:
    student = load_student(write_generator(tmp_path / "student", network=network, equation=equation)).with_head(head)
    module = student.module()
    first = student.eps(range(2), 0), student.params(range(2), 0)
    batch = torch.export.Dim("batch", max=4096)
    program = torch.export.export(module, first, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, tmp_path / "student.pt2")
    asked = student.eps(range(5), 3), student.params(range(5), 3)
    wanted = student.sample(5, seed=3)
    torch.save(asked, tmp_path / "asked.pt")
    subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=tmp_path, check=True, timeout=300)
    made = torch.load(tmp_path / "made.pt")
    for found, exact in ((made, 1e-5), (module(*asked), 1e-6)):
        scale = student.join(wanted).abs().max()
        torch.testing.assert_close(found / scale, student.join(wanted) / scale, rtol=0, atol=exact)
    again = student.sample(5, seed=3)  # nothing of the exporter is left
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)
