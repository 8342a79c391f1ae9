"""A worker whose process stands still is ended by the driver, wherever the other workers are waiting for it."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
import ray

from pidscale.cluster import bulletin as bulletins
from pidscale.cluster.bulletin import Watch, birth, open_bulletin
from pidscale.cluster.worker import reported
from pidscale.run.reporting import Request

PATIENCE = 2.0  # seconds


@ray.remote(num_cpus=0)
class Worker:
    def begin(self, bulletin, rank):
        self.report = reported(bulletin, 1, rank, every=0.2)
        self.report.__enter__()
        return os.getpid()

    def leave(self):
        self.report.__exit__(None, None, None)

    def answer(self):
        return True


@pytest.mark.slow
def test_a_worker_without_a_sign_of_life_is_ended_and_no_other(ray_cluster, capsys):
    bulletin = open_bulletin()
    ray.get(bulletin.begin.remote(1))
    workers = [Worker.remote() for _ in range(3)]
    pids = ray.get([worker.begin.remote(bulletin, rank) for rank, worker in enumerate(workers)])
    watch = Watch("teacher", bulletin, lambda: Request.NOTHING, str, lambda: None, PATIENCE)
    with watch.watching():
        ray.get(workers[2].leave.remote())  # it has done its work, and reports nothing more
        time.sleep(2 * PATIENCE)
        assert "sign of life" not in capsys.readouterr().out
        os.kill(pids[1], signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(workers[1].answer.remote(), timeout=60)
        assert time.monotonic() - began > PATIENCE
        time.sleep(PATIENCE)
    said = capsys.readouterr().out
    assert said.count("teacher: worker 1 on host ") == said.count("has given no sign of life for ") == 1
    assert all(ray.get([workers[0].answer.remote(), workers[2].answer.remote()], timeout=60))
    for worker in workers:
        ray.kill(worker)


def test_a_number_that_belongs_to_another_process_by_now_is_left_alone():
    other = subprocess.Popen(["sleep", "60"])
    try:
        bulletins._kill(other.pid, "1")
        bulletins._kill(other.pid, "")
        assert other.poll() is None
        bulletins._kill(other.pid, birth(other.pid))
        assert other.wait(10) == -signal.SIGKILL
        bulletins._kill(other.pid, "1")  # gone
    finally:
        other.kill()
