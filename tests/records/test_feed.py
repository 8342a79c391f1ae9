"""The samples of a step depend on seed and step only: not on the number of workers, nor on a restart."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pidscale.config import UserError
from pidscale.records.feed import Feed, order
from pidscale.records.read import ShardSet

BATCH, STEPS = 5, 9  # 45 samples of 13: steps that span epochs


def feed(made, rank=0, world=1, **own):
    return Feed(ShardSet(made.root, "train"), 3, BATCH, rank, world, **own)


def sequence(made, world, start=0):
    feeds = [feed(made, r, world, start_step=start) for r in range(world)]
    batches = [torch.cat([f.batch(step).fields_BCYX for f in feeds]) for step in range(start, STEPS)]  # cat copies
    for f in feeds:
        f.close()
    return batches


@pytest.mark.parametrize("block", [1, 2, 100])
def test_order_is_a_permutation_that_depends_on_seed_and_epoch(block):
    counts = [5, 5, 3, 7]
    first = order(1, 0, counts, block)
    assert first.dtype == np.int64 and sorted(first) == list(range(20))
    np.testing.assert_array_equal(first, order(1, 0, counts, block))
    assert (first != order(1, 1, counts, block)).any() and (first != order(2, 0, counts, block)).any()


def test_order_reads_few_shards_at_a_time():
    counts = [10] * 8
    shards = order(1, 0, counts, 2) // 10
    for group in shards.reshape(4, 20):
        assert len(set(group)) == 2
    assert len(set(order(1, 0, counts, 100)[:20] // 10)) > 4


@pytest.mark.parametrize("world", [2, 3, 7])
def test_every_world_sees_the_same_global_batches(made, world):
    for one, many in zip(sequence(made, 1), sequence(made, world), strict=True):
        assert torch.equal(one, many)


def test_restart_at_any_step_continues_the_same_sequence(made):
    whole = sequence(made, 2)
    for start in range(STEPS):
        for expected, found in zip(whole[start:], sequence(made, 2, start), strict=True):
            assert torch.equal(expected, found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    stops=st.lists(st.integers(0, STEPS), min_size=2, max_size=2),
    threads=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    prefetch=st.integers(1, 4),
    block=st.sampled_from([1, 2, 16]),
)
@example(worlds=[4, 2, 3], stops=[3, 6], threads=[0, 3, 1], prefetch=2, block=16)
def test_stopped_and_resumed_anyhow_the_sequence_is_the_same(made, worlds, stops, threads, prefetch, block):
    """A run that is stopped at any steps and goes on in another world, with other threads, sees the same samples."""
    counts, bounds = [5, 5, 3], [0, *sorted(stops), STEPS]
    expected = np.concatenate([order(3, epoch, counts, block) for epoch in range(4)])[: BATCH * STEPS]
    seen = []
    for part, (start, stop) in enumerate(itertools.pairwise(bounds)):
        world = worlds[part % len(worlds)]
        own = {"start_step": start, "threads": threads[part], "prefetch": prefetch, "block": block}
        feeds = [feed(made, rank, world, **own) for rank in range(world)]
        for step in range(start, stop):
            ids = np.concatenate([one.ids(step) for one in feeds])
            fields = torch.cat([one.batch(step).fields_BCYX for one in feeds]).numpy()
            np.testing.assert_array_equal(fields, np.stack([made.draw(n) for n in ids]))
            seen += ids.tolist()
        for one in feeds:
            one.close()
    np.testing.assert_array_equal(seen, expected)


def test_ids_run_through_the_epochs(made):
    one = feed(made)
    ids = np.concatenate([one.ids(step) for step in range(STEPS)])
    expected = np.concatenate([order(3, epoch, [5, 5, 3], 16) for epoch in range(4)])[: BATCH * STEPS]
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(one.batch(4).fields_BCYX.numpy(), ShardSet(made.root, "train").read(expected[20:25]))
    one.close()


def test_any_step_may_be_asked_for(made):
    one = feed(made)
    later = one.batch(6).fields_BCYX.clone()
    assert torch.equal(one.batch(0).fields_BCYX, sequence(made, 1)[0])
    one.batch(1)
    assert torch.equal(one.batch(6).fields_BCYX, later)
    one.close()
    assert torch.equal(one.batch(6).fields_BCYX, later)  # a closed feed starts again when asked
    one.close()


def test_batch_larger_than_the_set(made):
    one = Feed(ShardSet(made.root, "test"), 0, 11, 0, 1)
    assert one.batch(0).fields_BCYX.shape == (11, 2, 40, 24) and sorted(one.ids(0)[:4]) == [0, 1, 2, 3]
    one.close()


def test_rows_and_empty_shares(made):
    one = feed(made, rows=slice(10, 20))
    whole = feed(made)
    assert torch.equal(one.batch(2).fields_BCYX, whole.batch(2).fields_BCYX[:, :, 10:20])
    none = feed(made, 0, 7)
    assert none.batch(0).fields_BCYX.shape == (0, 2, 40, 24) and none.ids(0).dtype == np.int64
    for f in (one, whole, none):
        f.close()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_parameters_come_with_their_fields(made, threads):
    def params(ids):
        return torch.from_numpy(np.stack([ids, ids**2], axis=1)).double()

    feeds = [feed(made, rank, 2, threads=threads, params=params) for rank in range(2)]
    for step in (0, 1, 2, 7):
        for one in feeds:
            assert torch.equal(one.batch(step).params_BP, params(one.ids(step)))
    for one in feeds:
        one.close()
    bare = feed(made)
    assert bare.batch(0).params_BP.shape == (BATCH, 0)
    bare.close()


def test_an_error_of_the_parameters_reaches_the_consumer(made):
    def params(ids):
        raise UserError(f"sample {ids[0]} has no parameters")

    one = feed(made, params=params)
    with pytest.raises(UserError, match="has no parameters"):
        one.batch(0)


def test_error_of_the_thread_reaches_the_consumer(made):
    path = made.root / "train-00001.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    one = feed(made)
    with pytest.raises(UserError, match=r"train-00001\.tar.*row block"):
        for step in range(3):
            one.batch(step)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]
    with pytest.raises(UserError, match=r"train-00001\.tar"):  # asked again, it says so again
        for step in range(3):
            one.batch(step)


def test_close_ends_the_thread_while_its_queue_is_full(made):
    before = threading.active_count()
    one = feed(made, prefetch=1)
    one.batch(0)
    time.sleep(0.05)
    one.close()
    assert threading.active_count() == before


def test_waiting_is_counted(made, monkeypatch):
    read = ShardSet.read
    monkeypatch.setattr(ShardSet, "read", lambda *given: time.sleep(0.05) or read(*given))
    one = feed(made)
    one.batch(0)
    assert 0.03 < one.waited < 5
    one.close()


@pytest.mark.parametrize(("wrong", "key"), [({"prefetch": 0}, "data.prefetch"), ({"block": 0}, "data.block")])
def test_wrong_settings_are_named(made, wrong, key):
    with pytest.raises(UserError, match=key):
        feed(made, **wrong).batch(0)
    with pytest.raises(UserError, match=r"data\.global_batch"):
        Feed(ShardSet(made.root, "train"), 0, 0, 0, 1)
