"""Teacher actors on a real Ray: what they give, in which order, and one line where they cannot start."""

from __future__ import annotations

import os

import pytest
import ray
import torch

from pidscale.config import UserError, to_plain
from pidscale.distill.endpoints.actors import Served, start_actors
from pidscale.distill.endpoints.rollout import open_rollout
from pidscale.generator.load import load_teacher
from tests import small
from tests.distill.test_rollout import write_teacher

CPU = torch.device("cpu")


@pytest.fixture
def one_thread():
    """As actors of one CPU have: bits may follow from the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_actors_give_what_the_teacher_makes_or_say_why_not(ray_cluster, one_thread, small_shards, tmp_path):
    given = {"environment": {"PIDSCALE_SAMPLE": "of all hosts"}}
    settings = small.settings(small_shards, tmp_path, distill={"actors": 2}, cluster=given)
    served = Served(start_actors(settings, tmp_path, to_plain(settings), None), 0, 2, 60.0, CPU)
    with pytest.raises(UserError, match=r"a teacher actor could not start: .*no teacher there") as error:
        served.get(torch.arange(8))
    assert "\n" not in str(error.value)

    write_teacher(tmp_path / "teacher", settings)
    rollout = open_rollout(settings, load_teacher(tmp_path / "teacher"))
    served = Served(start_actors(settings, tmp_path, to_plain(settings), None), 0, 2, 60.0, CPU)
    rows = [torch.arange(8) + 8 * n for n in range(5)]
    seen = ray.get([actor.__ray_call__.remote(lambda _: dict(os.environ)) for actor in served.actors])
    assert all(one["PIDSCALE_SAMPLE"] == "of all hosts" and one["OMP_NUM_THREADS"] == "1" for one in seen)
    early = served.get(rows[4])  # before any order is known, as the residual's scale asks
    served.start(iter(rows[:4]))
    assert len(served.asked) == 2  # no more than what may be ahead
    for row in rows[:3]:
        made, expected = served.get(row), rollout.endpoints(row)
        assert torch.equal(made.fields_BCYX, expected.fields_BCYX) and torch.equal(made.checksums, expected.checksums)
        assert len(served.asked) <= 2
    assert torch.equal(early.fields_BCYX, rollout.endpoints(rows[4]).fields_BCYX)
    assert served.tally.take()[0] == 32
    with pytest.raises(RuntimeError, match="were asked for"):
        served.get(rows[0])
    served.close()
