"""A student as a program: the same fields from onnxruntime, or from torch alone, with any batch size."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import pidscale
from pidscale.app.main import main
from pidscale.generator.programs import write_program
from pidscale.generator.student import Student
from tests.commands import ROOT
from tests.generator.made import write_generator

EXAMPLE = ROOT / "docs" / "examples" / "run_onnx.py"


def fields_of(student: Student, path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What a file in ONNX and the student make of the same noise."""
    eps, params = student.eps(range(count), seed=1), student.params(range(count), seed=1)
    session = onnxruntime.InferenceSession(path)
    names = [entry.name for entry in session.get_inputs()]
    assert names == (["noise", "params"] if student.pde.varying else ["noise"])
    values = dict(zip(names, (eps.numpy(), params.numpy()), strict=False))
    with torch.no_grad():
        whole = student.module()(eps, params)
    return session.run(["fields"], values)[0], whole.numpy()


@pytest.mark.parametrize(
    ("equation", "network", "head"), [("poisson", "unet", 1), ("darcy", "unet", 2), ("heat", "fno", 0)]
)
def test_onnxruntime_makes_the_same_fields(equation: str, network: str, head: int, tmp_path: Path) -> None:
    """A UNet behind the sine transform and behind conjugate gradients, and an FNO whose samples differ in a parameter."""
    made_of = write_generator(tmp_path / "student", network=network, equation=equation)
    student = pidscale.load_student(made_of).with_head(head)
    path = tmp_path / "student.onnx"
    write_program(student, path)
    for count in (1, 5):
        made, whole = fields_of(student, path, count)
        assert made.shape == whole.shape and made.dtype == np.float32
        for c in range(made.shape[1]):
            assert np.linalg.norm(made[:, c] - whole[:, c]) <= 1e-5 * np.linalg.norm(whole[:, c])
    card = json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["card"])
    assert card == json.loads(json.dumps(student.card.to_plain())) and card["equation"]["name"] == equation


def test_the_command_writes_it_and_the_example_runs_it_without_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "poisson.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["export", "--student", str(ROOT / "students" / "poisson"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert str(out) in said and "noise [B, 2 x 32 x 32]" in said and "params" not in said
    argv = f"import sys; sys.argv = ['', {str(out)!r}, 'fields.npz']"
    code = f"{argv}; exec({EXAMPLE.read_text()!r}); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.count("mean") == 2, done.stderr
    with np.load(tmp_path / "fields.npz") as found:
        assert all(found[name].shape == (16, 32, 32) for name in ("source", "solution"))
        assert all(np.isfinite(values).all() and values.std() > 0 for values in found.values())


def test_the_command_writes_a_program_of_torch(tmp_path: Path) -> None:
    student = pidscale.load_student(write_generator(tmp_path / "student", network="fno", equation="heat"))
    out = tmp_path / "student.pt2"
    assert main(["export", "--student", str(tmp_path / "student"), "--head", "0", "--out", str(out)]) == 0
    given = student.eps(range(3), seed=1), student.params(range(3), seed=1)
    with torch.no_grad():
        made = torch.export.load(out).module()(*given)
        assert torch.allclose(made, student.with_head(0).module()(*given), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--student", "students/navier_stokes", "--out", "x.onnx", "--head", "1"], "--head 0"),
        (["--student", "students/darcy", "--out", "x.txt"], "--out=x.txt: expected a name that ends in .onnx or .pt2"),
        (["--student", "students/darcy", "--out", "nowhere/x.onnx"], "nowhere"),
        (["--student", "nowhere", "--out", "x.onnx"], "nowhere"),
        (["--student", "students/darcy", "--out", "x.onnx", "--head", "-1"], "head"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "students").symlink_to(ROOT / "students")
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["students"]
