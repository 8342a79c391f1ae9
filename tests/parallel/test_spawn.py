"""Functions on several ranks: results come back, failures are named, and what hangs is ended."""

from __future__ import annotations

import os
import time

import pytest
import torch
import torch.distributed as dist

from pidscale.parallel.spawn import RankFailed
from tests.ranks import spawn


def _sum(rank: int, world: int, start: int) -> dict[str, object]:
    tensor = torch.full((3,), float(start + rank), dtype=torch.float64, requires_grad=True)
    total = tensor.detach().clone()
    dist.all_reduce(total)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "DS_ACCELERATOR")
    return {
        "total": total,
        "graph": tensor * 2,
        "threads": torch.get_num_threads(),
        "environment": [os.environ[name] for name in names],
    }


def _one_raises(rank: int, world: int) -> None:
    if rank == 1:
        raise ValueError("the field has no rows")
    dist.barrier()


def _one_dies(rank: int, world: int) -> None:
    if rank == 1:
        os._exit(7)
    dist.barrier()


def _one_hangs(rank: int, world: int) -> int:
    if rank == 1:
        time.sleep(1000)
    return os.getpid()


@pytest.mark.parametrize("world", [1, 2])
def test_every_rank_returns(world: int) -> None:
    results = spawn(_sum, world, 5)
    assert len(results) == world
    for rank, result in enumerate(results):
        assert torch.equal(result["total"], torch.full((3,), float(5 * world + sum(range(world))), dtype=torch.float64))
        assert torch.equal(result["graph"], torch.full((3,), 2.0 * (5 + rank), dtype=torch.float64))
        assert result["threads"] == 1
        assert result["environment"] == [str(rank), str(world), str(rank), str(world), "127.0.0.1", "cpu"]
    assert "RANK" not in os.environ


def test_the_failing_rank_is_named_with_its_traceback() -> None:
    with pytest.raises(RankFailed, match=r"(?s)rank 1 failed:.*_one_raises.*ValueError: the field has no rows"):
        spawn(_one_raises, 2)


def test_a_rank_that_dies_is_named_with_its_exit_code() -> None:
    with pytest.raises(RankFailed, match="rank 1 died with exit code 7"):
        spawn(_one_dies, 2)


def test_a_hanging_rank_is_killed_and_shows_where_it_hung() -> None:
    start = time.monotonic()
    with pytest.raises(RankFailed, match=r"(?s)still running after 15 s: rank 0, 1.*rank 1:.*_one_hangs"):
        spawn(_one_hangs, 2, timeout=15)
    assert time.monotonic() - start < 25
