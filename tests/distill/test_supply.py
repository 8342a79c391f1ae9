"""Endpoints are the same whenever they are made; a thread that makes them ahead is bounded and hides no error."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from pidscale.distill.endpoints.buffer import EndpointBuffer
from pidscale.distill.endpoints.endpoint import Endpoints
from pidscale.distill.endpoints.rollout import Rollout
from pidscale.distill.endpoints.supply import Ahead, Inline
from pidscale.generator.load import load_teacher
from tests import small
from tests.distill.test_rollout import write_teacher

CPU = torch.device("cpu")


def make(counters: torch.Tensor) -> Endpoints:
    return Endpoints(counters, torch.zeros(len(counters), 0), counters.float().reshape(-1, 1, 1, 1), counters)


def waits(condition, seconds=20.0):
    """Until a condition holds, or too long."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_a_buffer_gives_the_same_bits_inline_and_ahead(small_shards, tmp_path):
    teacher = load_teacher(write_teacher(tmp_path / "teacher", small.settings(small_shards, tmp_path)))
    rollout, found = Rollout(teacher, "dpm2m", 3, 2, seed=0), {}
    for name, supply in {"inline": Inline(rollout.endpoints), "ahead": Ahead(rollout.endpoints, 2, CPU)}.items():
        buffer = EndpointBuffer(3, 2, 4, 0, 4, 0, supply.get)
        buffer.row(1, 0)  # a scale has measured it before the first step
        supply.start(buffer.wanted(0, 14))
        found[name] = [buffer.take(step) for step in range(14)]
        supply.close()
        made, busy = supply.tally.take()
        assert busy > 0 and made == 4 * buffer.made and supply.tally.take() == (0, 0.0)
    for one, other in zip(found["inline"], found["ahead"], strict=True):
        assert torch.equal(one.counters, other.counters) and torch.equal(one.fields_BCYX, other.fields_BCYX)
        assert torch.equal(one.checksums, other.checksums)


def test_what_is_ahead_is_bounded_and_taken_in_order():
    made = []

    def slow(counters):
        made.append(int(counters[0]))
        return make(counters)

    supply = Ahead(slow, 2, CPU)
    supply.start(torch.tensor([n]) for n in range(20))
    assert waits(lambda: len(made) == 3)  # two ready, one in hand
    time.sleep(0.1)
    assert made == [0, 1, 2]
    for n in range(20):
        assert supply.get(torch.tensor([n])).counters.tolist() == [n]
        assert len(made) <= n + 4
    assert supply.tally.made == 20
    supply.close()


def test_making_that_no_step_waits_for_is_counted():
    def slow(counters):
        time.sleep(0.05)
        return make(counters)

    inline, ahead = Inline(slow), Ahead(slow, 4, CPU)
    for supply in (inline, ahead):
        supply.get(torch.tensor([99]))  # before the first step, which waits for it
        supply.start(torch.tensor([n]) for n in range(4))
    assert waits(lambda: ahead.tally.spent >= 4 * 0.05)
    for n in range(4):
        inline.get(torch.tensor([n]))
        ahead.get(torch.tensor([n]))
    assert inline.tally.hidden == 0 and 4 * 0.05 - ahead.tally.waited <= ahead.tally.hidden < ahead.tally.busy
    ahead.close()


def test_an_error_reaches_the_step_that_waits():
    def broken(counters):
        if counters[0] == 2:
            raise MemoryError("no room")
        return make(counters)

    supply = Ahead(broken, 2, CPU)
    supply.start(torch.tensor([n]) for n in range(5))
    assert [int(supply.get(torch.tensor([n])).counters) for n in range(2)] == [0, 1]
    with pytest.raises(MemoryError, match="no room"):
        supply.get(torch.tensor([2]))
    supply.close()


def test_another_order_than_was_said_is_an_error():
    supply = Ahead(make, 1, CPU)
    supply.start(torch.tensor([n]) for n in (4, 5))
    with pytest.raises(RuntimeError, match=r"endpoints \[4\] came where \[5\] were asked for"):
        supply.get(torch.tensor([5]))
    supply.close()


def test_closing_ends_a_thread_that_nobody_waits_for():
    supply = Ahead(make, 1, CPU)
    supply.start(torch.tensor([n]) for n in range(10**9))
    assert waits(lambda: supply.tally.made >= 2)
    supply.close()
    assert not any(thread is supply.thread for thread in threading.enumerate())
