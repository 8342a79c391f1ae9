"""Ray tasks make the same set as one process, and an error in a task is one line."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pidscale.config import UserError
from pidscale.dataset import tasks
from pidscale.make import make
from pidscale.make.make import make_shard_set
from pidscale.pde.darcy import Darcy

PDE = Darcy()


def run(root, **settings):
    arguments = {"grid": PDE.grid(17), "seed": 5, "samples_per_shard": 4} | settings
    return make_shard_set(PDE, root, {"train": 10, "test": 3}, **arguments)


CPUS = {"CPU": 8.0}


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([(True, CPUS)], "no host of the cluster has the 2 CPUs and 1 GPU that a task needs, for 600 s"),
        ([(True, CPUS), (False, CPUS | {"GPU": 4.0})], "2 CPUs and 1 GPU"),
        ([(True, {"CPU": 1.0, "GPU": 4.0})], "2 CPUs and 1 GPU"),
    ],
)
def test_a_task_that_fits_no_host_is_waited_for_and_refused(monkeypatch, hosts, words):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": alive, "Resources": has} for alive, has in hosts])
    monkeypatch.setattr(ray, "remote", lambda **_: lambda make: SimpleNamespace(remote=lambda job: job))
    monkeypatch.setattr(ray, "wait", lambda running, **_: ([], running))
    monkeypatch.setattr(ray, "cancel", lambda task: None)
    with pytest.raises(UserError, match=words):
        list(tasks.run_in_ray(print, [1], 1, num_cpus=2, num_gpus=1))


def test_a_task_fits_a_host_with_its_cpus_and_gpus(monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": CPUS | {"GPU": 1.0}}])
    assert tasks._has_host(8, 1) and tasks._has_host(8, 0)
    assert not tasks._has_host(9, 0) and not tasks._has_host(1, 2)


@pytest.mark.slow
def test_ray_makes_the_same_bytes_and_reports_errors_in_one_line(ray_cluster, tmp_path):
    seen = []
    run(tmp_path / "many", in_flight=2, progress=lambda done, total: seen.append((done, total)))
    run(tmp_path / "one", parallel=False)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "many" / path.name).read_bytes()
    assert seen[-1] == (13, 13) and len(seen) == 4

    jobs = make._plan(PDE, PDE.grid(17), str(tmp_path / "nowhere"), 5, {"train": 4}, 4)  # no such folder on that host
    with pytest.raises(UserError) as error:
        list(make.run_in_ray(make.make_shard, jobs, 1))
    assert "train-00000.tar" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_a_task_that_always_loses_its_process_has_a_result_that_stands_for_it(ray_cluster):
    def job(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return number, ""

    found = dict(tasks.run_in_ray(job, [1, 2, 3], 2, lost=lambda number, reason: (number, reason)))
    assert found.keys() == {1, 2, 3} and found[1] == found[3] == ""
    assert found[2].startswith("its process was lost repeatedly (") and "\n" not in found[2]
    with pytest.raises(UserError, match="a task was lost repeatedly"):
        list(tasks.run_in_ray(job, [2], 1))


@pytest.mark.slow
def test_a_task_that_takes_too_long_is_ended_and_the_others_are_not(ray_cluster, tmp_path):
    def job(number):
        (tmp_path / f"{number}-{os.getpid()}").touch()
        if number == 2:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as a call that does not end
            time.sleep(600)
        return number, ""

    began = time.monotonic()
    found = dict(tasks.run_in_ray(job, [2, 1, 3], 2, lost=lambda number, reason: (number, reason), longest=20))
    assert found == {1: "", 2: "it took longer than 20 s", 3: ""} and time.monotonic() - began < 120
    (stuck,) = (int(path.name.split("-")[1]) for path in tmp_path.glob("2-*"))
    while Path(f"/proc/{stuck}").exists() and time.monotonic() - began < 120:
        time.sleep(0.2)
    assert not Path(f"/proc/{stuck}").exists()
