"""Samples in 16 bits: near those in float32, with residuals, head and searches in float32 and the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pidscale.app.main import main
from pidscale.generator.artifact import read_card
from pidscale.generator.load import load_student
from pidscale.generator.student import Student
from pidscale.methods.base import counting
from tests.commands import ROOT
from tests.generator.known import refused
from tests.generator.made import write_generator

EPSILON = {"bf16": 2**-8, "fp16": 2**-11}  # half a unit of 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("half")
    write_generator(root / "student" / "teacher", "teacher")
    return write_generator(root / "student", teacher=root / "student" / "teacher")


@pytest.fixture(scope="module")
def student(folder: Path) -> Student:
    return load_student(folder)


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", ["darcy", "navier_stokes"])  # a UNet and an FNO
@pytest.mark.parametrize("precision", EPSILON)
def test_samples_differ_by_a_few_roundings_and_obey_the_equation_as_well(name: str, precision: str) -> None:
    whole = load_student(ROOT / "students" / name)
    half = whole.with_precision(precision)
    eps = whole.eps(range(4), 0)
    params = whole.params(range(4), 0)
    x = half.generate(eps, params)
    assert x.dtype == torch.float32
    assert EPSILON[precision] / 100 < apart(x, whole.generate(eps, params)) < 3 * EPSILON[precision]
    fields = half.sample(4)
    assert all(values.dtype == torch.float32 for values in fields.values())
    for norm, values in whole.residual(whole.sample(4)).items():
        assert torch.allclose(half.residual(fields)[norm], values, rtol=0.2, atol=1e-6), norm


@pytest.mark.parametrize("precision", EPSILON)
def test_inner_layers_compute_in_16_bits_and_the_ends_in_float32(student: Student, precision: str) -> None:
    half = student.with_precision(precision)
    seen: dict[str, torch.dtype] = {}
    hooks = [
        layer.register_forward_hook(lambda own, given, made, name=name: seen.update({name: made.dtype}))
        for name, layer in student.denoiser.named_modules()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    half.sample(1)
    for hook in hooks:
        hook.remove()
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    assert seen.pop("network.last") == torch.float32
    assert set(seen.values()) == {kinds[precision]} and len(seen) > 10


def test_the_student_itself_and_its_weights_stay_in_float32(student: Student) -> None:
    before = student.sample(2)["pressure"]
    half = student.with_precision("bf16")
    assert (half.precision, half.teacher.precision, student.precision) == ("bf16", "bf16", "fp32")
    for own, shared in zip(half.denoiser.parameters(), student.denoiser.parameters(), strict=True):
        assert own is shared and own.dtype == torch.float32
    assert not torch.equal(half.sample(2)["pressure"], before)
    assert torch.equal(student.sample(2)["pressure"], before)
    assert torch.equal(half.with_precision("fp32").sample(2)["pressure"], before)
    assert half.with_head(2).precision == "bf16"
    assert not torch.equal(half.sample(2, nfe=2)["pressure"], student.sample(2, nfe=2)["pressure"])


def test_searches_and_comparisons_compute_in_float32(student: Student) -> None:
    known = student.sample(1)["pressure"]
    half = student.with_precision("fp16")
    for found, wanted in (
        (half.refine(1, steps=3).eps, student.refine(1, steps=3).eps),
        (half.inverse(known, steps=3).fields["pressure"], student.inverse(known, steps=3).fields["pressure"]),
    ):
        assert torch.equal(found, wanted)
    with counting(half) as (counted, tally):
        assert torch.equal(counted.sample(1)["pressure"], student.sample(1)["pressure"]) and tally.calls == 1


def test_a_network_beyond_float16_is_refused_and_bf16_takes_it(folder: Path, student: Student) -> None:
    large = load_student(folder)
    with torch.no_grad():
        large.denoiser.network.first.weight.mul_(1e6)
    assert "precision=fp16" in refused(lambda: large.with_precision("fp16").sample(1))
    assert large.with_precision("bf16").sample(1)["pressure"].isfinite().all()
    assert "precision='half': expected one of fp32, bf16, fp16" in refused(lambda: student.with_precision("half"))


def test_the_command_samples_in_16_bits(folder: Path, student: Student, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    assert main(["sample", "--student", str(folder), "-n", "2", "--out", str(out), "--precision", "bf16"]) == 0
    wanted = student.with_precision("bf16").sample(2)
    with np.load(out) as found:
        assert all(np.array_equal(found[name], values) for name, values in wanted.items())
    assert read_card(folder) == replace(student.card)
