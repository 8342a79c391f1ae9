"""Which endpoint is used at which step: a function of the step alone, with even use, bounded memory and no exchange."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pidscale.distill.endpoints.buffer import EndpointBuffer
from pidscale.distill.endpoints.endpoint import Endpoints
from pidscale.parallel.mesh import Mesh

few = settings(deadline=None, max_examples=25)
DEPTHS, REUSES, SEEDS = st.integers(1, 9), st.integers(1, 7), st.integers(0, 3)


def make(counters):
    return Endpoints(counters, torch.zeros(len(counters), 0), counters.double().reshape(-1, 1, 1, 1), counters)


def buffer(depth, reuse, batch=4, seed=0, mesh=None):
    mine = (mesh or Mesh()).slice(batch)
    return EndpointBuffer(depth, reuse, batch, mine.start, mine.stop, seed, make)


def rows(one, steps):
    """The row of endpoints used at each step: its counters' common number."""
    found = []
    for step in steps:
        counters = one.take(step).counters
        row = int(counters[0]) // one.batch
        assert counters.tolist() == list(range(row * one.batch, (row + 1) * one.batch))
        found.append(row)
    return found


@few
@given(depth=DEPTHS, reuse=REUSES, seed=SEEDS)
def test_every_row_is_used_equally_often(depth, reuse, seed):
    """Rows that are there from the start are used up to `reuse` times, all later ones exactly so, within one window."""
    passes = 4 * reuse
    used = rows(buffer(depth, reuse, seed=seed), range(passes * depth))
    counts = Counter(used)
    assert all(1 <= counts[row] <= reuse for row in counts)
    last = set(used[-depth:])
    settled = [row for row in counts if row >= depth and row not in last]
    assert settled and all(counts[row] == reuse for row in settled)
    for row in settled:
        places = [step for step, other in enumerate(used) if other == row]
        assert places[-1] - places[0] < (reuse + 1) * depth
        assert len({place // depth for place in places}) == reuse  # once in a pass


@few
@given(depth=DEPTHS, reuse=REUSES, seed=SEEDS)
def test_rows_are_bounded_new_and_needed_at_an_even_rate(depth, reuse, seed):
    one, seen, fresh = buffer(depth, reuse, seed=seed), set(), []
    for step in range(5 * reuse * depth):
        made = one.made
        (row,) = rows(one, [step])
        assert len(one.rows) <= depth
        assert (one.made > made) == (row not in seen)  # made once, never again
        seen.add(row)
        fresh.append(one.made - made)
    assert one.used == len(fresh) and one.made == sum(fresh) == len(seen)
    per_pass = [sum(fresh[i : i + depth]) for i in range(depth, len(fresh), depth)]
    assert max(per_pass) - min(per_pass) <= 1
    assert sum(per_pass[: 2 * reuse]) == 2 * depth  # over `reuse` passes every slot is replaced once


@few
@given(depth=DEPTHS, reuse=REUSES, seed=SEEDS, start=st.integers(0, 400))
def test_a_restart_at_any_step_goes_on_with_the_same_endpoints(depth, reuse, seed, start):
    steps = range(start, start + 3 * depth)
    whole = rows(buffer(depth, reuse, seed=seed), range(start + 3 * depth))[start:]
    fresh = buffer(depth, reuse, seed=seed)
    assert rows(fresh, steps) == whole
    assert all(
        torch.equal(fresh.take(s).fields_BCYX, buffer(depth, reuse, seed=seed).take(s).fields_BCYX) for s in steps
    )


@few
@given(depth=DEPTHS, reuse=REUSES, seed=SEEDS, batch=st.sampled_from([4, 8, 12]))
def test_any_number_of_ranks_sees_the_same_global_batches(depth, reuse, seed, batch):
    alone = buffer(depth, reuse, batch, seed)
    for world in (1, 2, 4):
        ranks = [buffer(depth, reuse, batch, seed, Mesh(rank, world)) for rank in range(world)]
        for step in range(2 * depth * reuse):
            together = torch.cat([one.take(step).counters for one in ranks])
            assert torch.equal(together, alone.take(step).counters)


@few
@given(depth=DEPTHS, reuse=REUSES, seed=SEEDS, start=st.integers(0, 100), kept=st.booleans())
def test_what_will_be_wanted_is_known_beforehand(depth, reuse, seed, start, kept):
    """In the order of the steps, from any step on, also where rows are there already."""
    one, asked = buffer(depth, reuse, seed=seed), []
    if kept:
        one.row(0, 0)
    wanted = list(one.wanted(start, start + 3 * depth))
    one.make = lambda counters: asked.append(counters) or make(counters)
    for step in range(start, start + 3 * depth):
        one.take(step)
    assert len(asked) == len(wanted) and all(torch.equal(a, b) for a, b in zip(asked, wanted, strict=True))


@few
@given(depth=DEPTHS, reuse=REUSES, seed=SEEDS, steps=st.integers(1, 200))
def test_how_many_rows_a_run_uses_is_known_without_walking_it(depth, reuse, seed, steps):
    assert buffer(depth, reuse, seed=seed).rows_before(steps) == 1 + max(
        rows(buffer(depth, reuse, seed=seed), range(steps))
    )


def test_a_long_run_is_counted_at_once():
    assert buffer(1000, 10).rows_before(10**15) == pytest.approx(10**14, rel=1e-6)


def test_the_order_within_a_pass_changes_from_pass_to_pass():
    one = buffer(6, 3)
    orders = {tuple(one.slot(pass_ * 6 + i) for i in range(6)) for pass_ in range(20)}
    assert len(orders) > 15 and all(sorted(order) == list(range(6)) for order in orders)
    assert buffer(6, 3, seed=1).slot(0) != one.slot(0) or buffer(6, 3, seed=1).slot(1) != one.slot(1)


@pytest.mark.parametrize(("depth", "reuse"), [(1, 1), (5, 1)])
def test_reuse_one_makes_every_endpoint_again(depth, reuse):
    used = rows(buffer(depth, reuse), range(40))
    assert len(set(used)) == 40
