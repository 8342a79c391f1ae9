"""Limits of a step under ZeRO: a gradient whose square exceeds float32, and a rank that does not answer.

cluster.timeout holds for every process group of a run, so that no step of DeepSpeed waits for torch's default of 30 minutes.
"""

from __future__ import annotations

import math
import time

import torch
import torch.distributed as dist
from torch import nn

from pidscale.engine.ema import weights
from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.parallel.mesh import Mesh
from tests.ranks import spawn

LIMIT, ASLEEP = 15.0, 120.0
STAGES = (0, 1, 2)  # stage 3 sums squares in a wider type and takes such a step


def _zero(stage, mesh):
    torch.manual_seed(0)
    return Zero(nn.Linear(4, 4), ZeroSettings(stage, 1, 1, 0.0, {}), mesh)


def _large(stage, mesh):
    """A step with a gradient of 1e25, then two of 1: whether each was taken, and how far it moved the weights."""
    zero = _zero(stage, mesh)
    found = []
    for size in (1e25, 1.0, 1.0):
        before = weights(zero.module, stage, mesh)
        zero.backward(zero(torch.full((1, 4), size)).sum() / mesh.world)
        norm, applied = zero.step(1e-3)
        after = weights(zero.module, stage, mesh)
        found.append((math.isfinite(norm), applied, max(float((after[n] - before[n]).abs().max()) for n in after)))
    zero.close()
    return found


def _limits(rank, world, folder):
    """Steps with large gradients by stage; the seconds after which the first rank gets an error, and its text."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), 1, LIMIT)  # before DeepSpeed creates its groups
    large = {stage: _large(stage, mesh) for stage in STAGES}
    zero = _zero(1, mesh)
    dist.barrier()
    began = time.monotonic()
    if rank == 1:
        while not (folder / "done").exists() and time.monotonic() - began < ASLEEP:
            time.sleep(0.1)
        return large, 0.0, ""
    said = "no error"
    try:
        zero.backward(zero(torch.ones(1, 4)).sum())
        zero.step(1e-3)
    except RuntimeError as error:
        said = str(error)
    (folder / "done").touch()
    return large, time.monotonic() - began, said


def test_large_gradients_are_skipped_and_a_silent_rank_times_out(tmp_path):
    (large, seconds, said), _ = spawn(_limits, 2, tmp_path)
    for stage in STAGES:
        first, *others = large[stage]
        assert first == (False, False, 0.0), stage  # a square beyond float32 would end all later updates of Adam
        assert all(applied and 5e-4 < moved < 2e-3 for _, applied, moved in others), (stage, others)
    assert LIMIT - 1 < seconds < ASLEEP - 3 and "imed out" in said, (seconds, said)
