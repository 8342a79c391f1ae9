"""A Ray cluster of two hosts, which are namespaces (hosts.py), and runs on it. Knows no faults."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pidscale.make.make import make_shard_set
from pidscale.pde import build_pde
from tests.hosts import ADDRESSES, Host, Switch
from tests.scripts import LAUNCH, family, tiny

HEAD = f"{ADDRESSES['one']}:6379"
SERVER = f"http://{ADDRESSES['one']}:8265"  # of jobs
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
SMALL = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]


class Pair:
    """Two connected hosts with one CPU each, and a shard set that both see."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start both hosts; `environment` is what their processes have beside that of every host."""
        self.folder = folder
        self.own = {**TOKEN, **(environment or {})}
        self.hosts = {}
        self.switch = Switch()
        pde = build_pde("darcy")
        sizes = {"train": 48, "test": 16}
        make_shard_set(pde, folder / "shards", sizes, grid=pde.grid(16), seed=0, samples_per_shard=16, parallel=False)
        self.plug_in("one")
        self.plug_in("two")

    def plug_in(self, name: str) -> None:
        """Connect a new host of this name to the network."""
        self.hosts[name] = Host(name, self.folder / f"{name}-{time.monotonic_ns()}")
        self.switch.plug(self.hosts[name])

    def ray(self, name: str, *words: str) -> None:
        """Run `ray start` on a host."""
        address = f"--node-ip-address={ADDRESSES[name]}"
        log = self.folder / f"ray-{name}.log"
        for _ in range(3):
            status = self.hosts[name].start("ray", "start", address, *SMALL, *words, log=log, **self.own).wait(180)
            if status == 0:
                return
            assert "timed out during startup" in log.read_text(), log.read_text()[-2000:]  # Ray waits only 30 s
            self.hosts[name].start("ray", "stop", "--force", log=log, **self.own).wait(60)
        raise AssertionError(log.read_text()[-2000:])

    def start(self, *, jobs: bool = False) -> None:
        """Start Ray on both hosts; with `jobs`, also the server that `submit` needs."""
        server = [f"--dashboard-host={ADDRESSES['one']}"] if jobs else ["--include-dashboard=false"]
        self.ray("one", "--head", "--port=6379", *server)
        self.ray("two", f"--address={HEAD}")

    def replace_second(self) -> None:
        """End host two, if it is still there, and let a new one of its name join."""
        self.hosts["two"].close()
        self.plug_in("two")
        self.ray("two", f"--address={HEAD}")

    def train(self, run: str, *more: str, script: str = "train_teacher", **environment: str):
        """Start a script, by default the training of a teacher, on host one; return the process and its log."""
        log = self.folder / f"{run}.log"
        words = self._words(run, more, script)
        return self.hosts["one"].start(*words, log=log, RAY_ADDRESS=HEAD, **self.own, **environment), log

    def submit(self, run: str, job: str, *more: str, script: str):
        """Submit a script as a job of Ray, whose log the command follows; return the process of the command and its log."""
        log = self.folder / f"{run}.log"
        words = ["ray", "job", "submit", f"--address={SERVER}", f"--submission-id={job}", "--"]
        return self.hosts["one"].start(*words, *self._words(run, more, script), log=log, **self.own), log

    def driver(self, run: str, process) -> int | None:
        """The process of the script that is at work on a run, which a command or Ray has started; None if there is none."""
        for number in {**family(self.hosts["one"].first), **family(process.pid)}:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{number}/cmdline").read_text().split("\0")
                if words[0].endswith("python") and words[1].startswith(str(LAUNCH)) and f"run.name={run}" in words:
                    return number
        return None

    def _words(self, run: str, more: Sequence[str], script: str) -> list[str]:
        return ["python", str(LAUNCH / f"{script}.py"), *tiny(self.folder, run, *more)]

    def close(self) -> None:
        """End all hosts and the switch."""
        for one in (*self.hosts.values(), self.switch):
            one.close()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Pair]:
    """Two hosts with Ray, while the body runs."""
    made = Pair(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()


def until(log: Path, words: str, process, seconds: float = 600) -> float:
    """Return the seconds until a log contains a pattern."""
    began = time.monotonic()
    while not re.search(words, log.read_text()):
        assert process.poll() is None or re.search(words, log.read_text()), log.read_text()[-3000:]
        assert time.monotonic() - began < seconds, f"{words!r} not in {seconds} s:\n{log.read_text()[-3000:]}"
        time.sleep(0.05)
    return time.monotonic() - began


def ended(process, log: Path, seconds: float = 60) -> float:
    """Return the seconds until a process has ended with status 2 and one line."""
    began = time.monotonic()
    assert process.wait(seconds) == 2, log.read_text()[-3000:]
    said = log.read_text()
    assert "Traceback" not in said and len(re.findall(r"^error: ", said, re.M)) == 1, said[-3000:]
    return time.monotonic() - began


def wait(condition: Callable[[], bool], process, log: Path) -> float:
    """Return the seconds until something is so, while a process is at work."""
    began = time.monotonic()
    while not condition():
        assert process.poll() is None and time.monotonic() - began < 600, log.read_text()[-3000:]
        time.sleep(0.05)
    return time.monotonic() - began


def progress(process, log: Path) -> float:
    """Return the seconds until a run has reported another step."""
    before = len(re.findall(r"/100000 ", log.read_text()))
    return wait(lambda: len(re.findall(r"/100000 ", log.read_text())) > before, process, log)


def driver(process) -> int:
    """The process that nsenter started, or became."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else process.pid
