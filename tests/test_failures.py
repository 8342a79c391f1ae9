"""Failures of attempts in one line: which worker on which host, and where the traceback is."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from pidscale.cluster.bulletin import Place
from pidscale.cluster.failures import failure
from pidscale.config import UserError

PLACES = {0: Place("a", "10.0.0.1"), 1: Place("a", "10.0.0.1"), 2: Place("b", "10.0.0.2")}
# errors as gloo and NCCL raise them
RESET = RuntimeError(
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.2]:31902: Connection reset by peer. This "
    "is typically caused by a remote worker hanging or bugs in the application."
)
CLOSED = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [192.168.7.7]:1026")
NCCL = RuntimeError(
    "NCCL error: remote process exited or there was a network error, ncclRemoteError: Connection closed by"
)
MESH = RuntimeError("Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc:144] timed out connecting")
DIED = WorkerHealthCheckFailedError("gone", failure=ray.exceptions.RayActorError(error_msg="The actor died."))
GONE = WorkerHealthCheckFailedError("gone", failure=ray.exceptions.RayActorError(error_msg="Its node died."))


def noted(error: Exception) -> Exception:
    error.add_note("Traceback (most recent call last): the worker's own")
    return error


@pytest.mark.parametrize(
    ("workers", "line", "users"),
    [
        (
            {0: RESET},
            "worker 0 on host a: lost its connection to worker 2 on host b (Connection reset by peer; ",
            False,
        ),
        (
            {0: CLOSED, 2: CLOSED},
            "worker 0 on host a: lost its connection to worker 1 on host a (Connection closed",
            False,
        ),
        ({0: CLOSED}, "worker 0 on host a: lost its connection to another worker (Connection closed by peer; ", False),
        ({2: NCCL}, "worker 2 on host b: lost its connection to a worker on host a (Connection closed; ", False),
        (
            {0: RESET, 2: RuntimeError("an illegal access")},
            "worker 2 on host b: RuntimeError: an illegal access (",
            False,
        ),
        ({0: RESET, 2: DIED}, "worker 2 on host b: lost (its process died; ", False),
        ({0: RESET, 2: GONE}, "worker 2 on host b: lost (its host is gone; ", False),
        ({1: MESH}, "worker 1 on host a: RuntimeError: Gloo connectFullMesh failed", False),
        ({0: RESET, 2: UserError("x.tar: damaged")}, "x.tar: damaged (worker 2 on host b)", True),
        ({2: ValueError("sigma_max=1: too low")}, "sigma_max=1: too low (worker 2 on host b); traceback: ", True),
    ],
)
def test_the_line_names_the_lost_worker_and_the_file_holds_the_traceback(tmp_path, workers, line, users):
    found = failure(WorkerGroupError("failed", {r: noted(e) for r, e in workers.items()}), PLACES, tmp_path, "teacher")
    assert found.line.startswith(line) and found.users == users and found.started and "\n" not in found.line
    kept = list((tmp_path / "errors").glob("teacher-*.txt"))
    assert len(kept) == (0 if line.startswith("x.tar") else 1)
    for path in kept:
        assert str(path) in found.line and "the worker's own" in Path(path).read_text()


def test_workers_that_could_not_start_have_lost_nothing(tmp_path):
    found = failure(RuntimeError("no room\nfor it"), {}, tmp_path, "distill")
    assert (
        found.line.startswith("the workers could not start (RuntimeError: no room; traceback: ") and not found.started
    )
