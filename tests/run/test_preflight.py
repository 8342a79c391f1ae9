"""Checks before a run starts: its network, its memory, and the message when memory runs out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from pidscale.config import ClusterSettings, ModelSettings, Settings, UserError
from pidscale.models import build_denoiser
from pidscale.run.host_limits import is_out_of_memory
from pidscale.run.memory import MemoryPlan, advice
from pidscale.run.preflight import (
    check_model,
    model_description,
    out_of_memory_line,
    plan_lines,
    plan_text,
    precision_remark,
    warning,
)


def settings(kind: str = "unet", size: str = "tiny", stage: int = 1, deepspeed: Any = None, **change: Any) -> Settings:
    cluster = ClusterSettings(workers=4, zero_stage=stage, deepspeed=deepspeed or {})
    return Settings(model=ModelSettings(kind, size, change), cluster=cluster)


@pytest.mark.parametrize("kind", ["unet", "fno"])
def test_the_count_of_parameters_is_that_of_the_network(kind: str) -> None:
    s = settings(kind, width=8)
    description = model_description(s, 3)
    assert description["channels"] == 3 and description["width"] == 8
    built = sum(p.numel() for p in build_denoiser(description).parameters())
    assert check_model(s, description, (32, 32)) == built


def test_a_billion_parameters_are_counted_without_allocating_them() -> None:
    s = settings(size="xl")
    assert check_model(s, model_description(s, 2), (64, 64)) > 1e9


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (dict(kind="vit"), "model.kind='vit'"),
        (dict(size="huge"), "model.size='huge'"),
        (dict(modes=3), "model.change.modes"),
    ],
)
def test_an_unknown_network_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        model_description(settings(**given), 2)


@pytest.mark.parametrize(
    "change", [{"width": 17}, {"width": "wide"}, {"multipliers": 3}, {"width": 104, "attention_levels": 3}]
)
def test_values_that_build_no_network_are_one_line(change: dict[str, Any]) -> None:
    s = settings(**change)
    with pytest.raises(UserError) as raised:
        check_model(s, model_description(s, 2), (32, 32))
    assert str(raised.value).startswith("model.change") and "\n" not in str(raised.value)


def test_a_grid_that_does_not_fit_the_network_is_refused() -> None:
    s = settings()
    with pytest.raises(UserError, match=r"33 x 33 points, this unet needs multiples of 4; .* model=fno_tiny"):
        check_model(s, model_description(s, 2), (33, 33))
    f = settings("fno")
    assert check_model(f, model_description(f, 2), (33, 33)) > 0


def test_the_deepspeed_section_is_checked_before_a_worker_starts() -> None:
    s = settings(deepspeed={"fp16": {"enabled": True}})
    with pytest.raises(UserError, match=r"cluster\.deepspeed\.fp16"):
        check_model(s, model_description(s, 2), (32, 32))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"reduce_bucket_size": "abc"}, "reduce_bucket_size: Input should be a valid integer"),
        ({"reduce_bucket_size": -1}, "reduce_bucket_size: "),
        ({"foo": 1}, "foo: Extra inputs are not permitted"),
        ({"offload_optimizer": {"device": "tape"}}, "offload_optimizer.device: "),
    ],
)
def test_deepspeed_checks_its_zero_section(section: dict[str, Any], words: str) -> None:
    s = settings(deepspeed={"zero_optimization": section})
    before = os.environ.get("DS_ACCELERATOR")
    with pytest.raises(UserError) as raised:
        check_model(s, model_description(s, 2), (32, 32))
    text = str(raised.value)
    assert text.startswith(f"cluster.deepspeed.zero_optimization.{words}") and "\n" not in text, text
    assert os.environ.get("DS_ACCELERATOR") == before


def test_the_plan_lists_sizes_by_stage() -> None:
    s = settings(stage=2)
    text = plan_text(model_description(s, 2), s.cluster, 1 << 20)
    assert text.startswith("unet of width ") and "1.05 M parameters" in text
    assert "4 workers" in text and "uses stage 2" in text
    for piece in ("stage 0 16.0 MiB", "stage 1 11.0 MiB", "stage 2 8.0 MiB", "stage 3 5.0 MiB"):
        assert piece in text
    assert "stage 0 16.0 GiB" in plan_text(model_description(s, 2), s.cluster, 1 << 30)


def plan(**changes: Any) -> MemoryPlan:
    mib = 1 << 20
    values: dict[str, Any] = dict(micro_batch=8, tile=(64, 256), advice="try something smaller") | changes
    return MemoryPlan(4 * mib, 3 * mib, 2 * mib, mib, 90 * mib, **values)


def test_the_memory_of_a_worker_is_one_sentence() -> None:
    assert plan_lines(plan(sampling=1 << 20)) == (
        "memory on each worker: weights 4.0 MiB, gradients 3.0 MiB, optimiser 2.0 MiB, average 1.0 MiB, activations "
        "90.0 MiB for a micro-batch of 8 on 64 x 256 points, in all at least 100.0 MiB"
    )
    text = plan_lines(plan(networks=2, frozen=4 << 20, endpoints=6 << 20, sampling=95 << 20))
    assert text == (
        "memory on each worker: weights 8.0 MiB, gradients 6.0 MiB, optimiser 4.0 MiB, average 2.0 MiB of 2 networks, "
        "frozen teacher 4.0 MiB, its endpoints 6.0 MiB, activations 90.0 MiB for a micro-batch of 8 on 64 x 256 points, "
        "or 95.0 MiB to sample, in all at least 125.0 MiB"
    )


def test_tensor_cores_that_stay_unused_are_a_line() -> None:
    s = settings(stage=1)
    on_gpus = replace(s, cluster=replace(s.cluster, use_gpu=True))
    remark = precision_remark(on_gpus)
    assert remark is not None and "model.precision=bf16" in remark
    assert precision_remark(s) is None
    assert precision_remark(replace(on_gpus, model=replace(s.model, precision="bf16"))) is None


def test_a_plan_that_does_not_fit_is_a_warning() -> None:
    assert warning(plan(), None) is None and warning(plan(), 100 << 20) is None
    assert warning(plan(), (100 << 20) - 1) == (
        "warning: each worker needs at least 100.000000 MiB of memory and may use 99.999999 MiB; try something smaller"
    )


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has", " when it asked for 20.5 GiB more"),
        (
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1536 bytes.",
            " when it asked for 1.5 KiB more",
        ),
        ("std::bad_alloc", ""),
    ],
)
def test_running_out_of_memory_is_one_line(message: str, asked: str) -> None:
    line = out_of_memory_line(RuntimeError(message), settings(), "distill")
    assert line.startswith(f"distill: a worker ran out of memory{asked}; try distill.micro_batch below 16, ")


CHILD = """
import mmap, resource, sys
from pathlib import Path
import numpy, torch
from pidscale.config import Settings
from pidscale.run.host_limits import is_out_of_memory, memory_limit
from pidscale.run.preflight import out_of_memory_line
from pidscale.models import architecture, build_denoiser

torch.set_num_threads(1)
def step(points):
    model = build_denoiser(architecture("unet", "tiny", 2))
    model(torch.randn(8, 2, points, points), torch.ones(8)).square().sum().backward()

step(16)
settings = Settings()
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (256 << 20),) * 2)
print(memory_limit())
ways = [lambda: torch.empty(1 << 34), lambda: step(256), lambda: bytearray(1 << 36), lambda: numpy.ones(1 << 34),
        lambda: mmap.mmap(-1, 1 << 36), lambda: {}["key"], lambda: torch.ones(2) @ torch.ones(3)]
for way in ways:
    try:
        way()
    except Exception as error:
        print(out_of_memory_line(error, settings, "teacher") if is_out_of_memory(error) else "another")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS binds on Linux")
def test_every_way_to_run_out_of_memory_is_one_line() -> None:
    result = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=120)
    limit, *lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert 200 << 20 < int(limit) <= 256 << 20
    assert len(lines) == 7 and lines[5:] == ["another", "another"]
    for line in lines[:5]:
        assert line.startswith("teacher: a worker ran out of memory")
        assert line.endswith(advice(Settings(), "teacher")) and "cluster.space above 1" in line
    assert "asked for 64.0 GiB more" in lines[0] and "asked for 128.0 GiB more" in lines[3]
    assert "MiB more" in lines[1]  # a real step


class _OutOfMemory(Exception):
    pass


def test_out_of_memory_errors_are_recognised_by_type_and_text() -> None:
    rays = type("OutOfMemoryError", (Exception,), {})
    known = [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB"),
        MemoryError("std::bad_alloc"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        rays("Task was killed due to the node running low on memory."),
    ]
    assert all(map(is_out_of_memory, known))
    assert not any(map(is_out_of_memory, [ValueError("out of memory"), OSError(errno.ENOENT, "x"), _OutOfMemory()]))
