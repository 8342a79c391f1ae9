"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # before torch is imported: the process beside this one has work too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

RAY_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how often reports are collected; the default of 2 s is for clusters
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 leaves its workers a thirtieth of a core that other tests want too
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """--trials=N: each fault of test_faults.py N times. --soak=M: test_soak.py for M minutes. --shrunk: test_shrunk.py."""
    parser.addoption("--trials", type=int, default=0, help="number of trials of each fault")
    parser.addoption("--soak", type=float, default=0, help="minutes of the long run with losses")
    parser.addoption("--shrunk", action="store_true", help="run the demo on two hosts, one of which is lost")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Trials of faults and long runs take up to hours: they are run by benchmarks, which set these options."""
    options = {"test_faults.py": "--trials", "test_soak.py": "--soak", "test_shrunk.py": "--shrunk"}
    asked = options.get(collection_path.name)
    return True if asked and not config.getoption(asked) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, those of most slow tests before others: files are what is shared out among processes.

    Those of the same number stay in their order, and so do the tests of a file.
    """
    slow: dict[Path, int] = {}
    for item in items:
        slow[item.path] = slow.get(item.path, 0) + (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def threads_stay() -> Iterator[None]:
    """No test leaves torch with another number of threads: more than there are cores slow down all tests after it."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None:
        assert sys.modules["torch"].get_num_threads() == before


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray of four logical CPUs for all tests of a process, started by the first that asks for it."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY_ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # ninja, for the workers
        ray.shutdown()  # of a Ray that a script in this process brought
        local: dict[str, Any] = {"address": "local"}  # never a cluster that happens to be running
        local |= {"num_cpus": 4, "include_dashboard": False, "object_store_memory": 150 << 20, "log_to_driver": False}
        try:
            ray.init(**local)
        except Exception as error:  # on a machine with much else to do, Ray's own 30 s are over before it is there
            assert "timed out during startup" in str(error)
            ray.shutdown()
            ray.init(**local)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """An S3 server of this file's own, behind a connection that tests can cut."""
    from tests import s3

    with s3.running() as running:
        yield running


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real shard set of Darcy flow, small enough to train on in seconds."""
    from tests.small import make_shards

    return make_shards(tmp_path_factory.mktemp("shards") / "darcy16")


@pytest.fixture(scope="session")
def heat_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the heat equation, whose diffusivity is each sample's own."""
    from pidscale.pde import build_pde
    from tests.small import HEAT, make_set

    return make_set(tmp_path_factory.mktemp("shards") / "heat16", build_pde(**HEAT))
