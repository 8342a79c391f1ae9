"""cluster.timeout holds for every group of a run: no step of DeepSpeed waits half an hour for a rank that stands still."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch import nn

from pidscale.engine.zero import Zero, ZeroSettings
from pidscale.parallel.mesh import Mesh
from tests.twins import spawn

LIMIT, ASLEEP = 4.0, 12.0


def _stands_still(rank, world):
    """Seconds until the first rank is told that the other one is not there, and what it is told."""
    mesh = Mesh.over(rank, world, torch.device("cpu"), 1, LIMIT)
    zero = Zero(nn.Linear(4, 4), ZeroSettings(1, 1, 1, 0.0, {}), mesh)
    zero.backward(zero(torch.ones(1, 4)).sum())
    zero.step(1e-3)  # all are there
    dist.barrier()
    began = time.monotonic()
    if rank == 1:
        time.sleep(ASLEEP)
        return None
    try:
        zero.backward(zero(torch.ones(1, 4)).sum())
        zero.step(1e-3)
    except RuntimeError as error:
        return time.monotonic() - began, str(error)
    return time.monotonic() - began, ""


def test_a_rank_that_stands_still_is_noticed_within_the_timeout():
    (seconds, said), _ = spawn(_stands_still, 2, timeout=240)
    assert LIMIT - 1 < seconds < ASLEEP - 2 and "imed out" in said, (seconds, said)
