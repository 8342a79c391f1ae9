"""Numbers of workers that a run may shrink to."""

from __future__ import annotations

import pytest

from pidscale.config import Settings, UserError, from_plain
from pidscale.limits import check, chunks_made, with_workers, worker_counts


def made(batch: int = 32, chunk: int = 2, **cluster: int) -> Settings:
    plain = {"teacher": {"global_batch": batch}, "distill": {"global_batch": batch, "chunk": chunk}, "cluster": cluster}
    return from_plain(Settings, plain)


def test_a_run_keeps_its_number_of_workers_unless_fewer_are_allowed():
    assert worker_counts(made(workers=8), "teacher") == (8,)
    assert worker_counts(made(workers=8, min_workers=8), "teacher") == (8,)


def test_shares_of_a_teachers_batch_may_differ():
    assert worker_counts(made(workers=8, min_workers=3), "teacher") == (8, 7, 6, 5, 4, 3)


def test_workers_that_share_fields_stay_together():
    assert worker_counts(made(workers=8, min_workers=1, space=2), "teacher") == (8, 6, 4, 2)


def test_shares_of_a_distillations_batch_may_differ_as_long_as_few_endpoints_are_made_in_vain():
    assert worker_counts(made(workers=8, min_workers=1, chunk=2), "distill") == (8, 7, 6, 5, 4, 3, 2, 1)
    assert worker_counts(made(workers=8, min_workers=1, chunk=8), "teacher") == (8, 7, 6, 5, 4, 3, 2, 1)
    assert worker_counts(made(workers=4, min_workers=1, chunk=8), "distill") == (4, 3, 2, 1)
    assert chunks_made(32, 4, 8) == 1 and chunks_made(32, 7, 1) == 1
    assert chunks_made(32, 3, 8) == 16 / 10  # samples 0 to 9 lie in two chunks
    with pytest.raises(UserError, match=r"distill\.chunk=8 does not fit the 32 / 8 .*; set distill\.chunk=4"):
        check(made(workers=8, chunk=8), ("distill",))


def test_settings_of_fewer_workers_pass_the_checks():
    for workers in worker_counts(made(workers=8, min_workers=2), "teacher"):
        own = with_workers(made(workers=8, min_workers=2), workers)
        check(own, ("teacher",))
        assert own.cluster.workers == workers


def test_more_than_all_workers_are_refused():
    with pytest.raises(UserError, match=r"cluster\.min_workers=3 is larger than cluster\.workers=2"):
        check(made(workers=2, min_workers=3))
