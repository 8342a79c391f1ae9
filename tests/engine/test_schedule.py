"""Micro-steps cover a global batch once, in equal numbers on all ranks; the learning rate is a function of the step."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidscale.config import TrainSettings
from pidscale.engine.schedule import learning_rate, micro_plan
from pidscale.parallel.mesh import Mesh


@given(world=st.integers(1, 9), extra=st.integers(0, 40), most=st.integers(1, 12))
def test_every_sample_is_in_one_of_equal_micro_steps(world: int, extra: int, most: int) -> None:
    batch = world + extra
    plans = [micro_plan(batch, most, Mesh(rank, world)) for rank in range(world)]
    assert len({(p.accumulation, p.micro) for p in plans}) == 1
    plan = plans[0]
    assert plan.micro <= most and plan.accumulation == math.ceil(math.ceil(batch / world) / most)
    assert sum(float(p.weights.sum()) for p in plans) == batch
    taken = []
    for rank, p in enumerate(plans):
        share = range(batch)[Mesh(rank, world).slice(batch)]
        assert p.indices.shape == p.weights.shape == (p.accumulation, p.micro)
        assert int(p.indices.min()) >= 0 and int(p.indices.max()) < len(share)
        assert set(p.weights.unique().tolist()) <= {0.0, 1.0}
        taken += [share[int(i)] for i, w in zip(p.indices.flatten(), p.weights.flatten(), strict=True) if w]
    assert sorted(taken) == list(range(batch))


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    s = TrainSettings(steps=1000, lr=2e-3, warmup=100)
    assert learning_rate(s, 0) == pytest.approx(2e-5)
    assert learning_rate(s, 49) == pytest.approx(1e-3, rel=0.01)
    assert learning_rate(s, 500) == pytest.approx(1e-3)
    assert learning_rate(s, 750) == pytest.approx(2e-3 * 0.14644660940672624)  # (1 + cos(3 pi / 4)) / 2
    rates = [learning_rate(s, step) for step in range(1000)]
    assert max(rates) <= 2e-3 and 0 < rates[-1] < 1e-7
    assert all(a > b for a, b in itertools.pairwise(rates[100:]))


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate(TrainSettings(steps=10, lr=0.5, warmup=0), 0) == 0.5
