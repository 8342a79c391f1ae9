"""A run on two hosts that meets a fault: follows its log, and measures what the fault costs. Knows no faults."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.pair import SERVER, TOKEN, Pair
from tests.scripts import family

SHARD = 16  # samples
STEPS = {"teacher": 150, "distill": 50, "shards": 40 * SHARD}  # of shards: samples
SCRIPTS = {"teacher": "train_teacher", "distill": "distill", "shards": "make_shards"}
MADE = {"teacher": "teacher", "distill": "student"}
JOBS = itertools.count()


def settings(pair: Pair, phase: str, name: str) -> list[str]:
    """The settings of a run of a phase beside those of every tiny run."""
    if phase == "shards":
        own = [f"data.train={STEPS[phase] - SHARD}", f"data.test={SHARD}", f"data.samples_per_shard={SHARD}"]
        return [*own, f"data.path={pair.folder}/runs/{name}/set", "pde.points=128", "cluster.wait=120"]
    teacher = [f"distill.teacher={pair.folder}/runs/reference/teacher"] if phase == "distill" else []
    return [f"{phase}.steps={STEPS[phase]}", "cluster.max_failures=2", "cluster.wait=120", *teacher]


@dataclass
class Trial:
    """One run with a fault.

    Attributes:
        pair: The two hosts.
        phase: `teacher`, `distill` or `shards`.
        name: The name of the run.
        more: Settings of the run beside those of every trial.
        submitted: Whether the run is submitted as a job of Ray.
        figures: What the trial has measured.
    """

    pair: Pair
    phase: str
    name: str
    more: list[str]
    submitted: bool = False
    figures: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run = self.pair.folder / "runs" / self.name
        self.at = 0.0  # when the fault happened
        self.reached = 0  # the last step that was reported before
        self.seen = 0  # characters of the log that were there before
        self.before: dict[Path, int] = {}  # when the shards of then were written
        self.start()

    def start(self) -> None:
        """Start the run, or the same command once more."""
        words = [*settings(self.pair, self.phase, self.name), *self.more]
        script = SCRIPTS[self.phase]
        self.job = f"{self.name}-{next(JOBS)}"
        if self.submitted:
            self.process, self.log = self.pair.submit(self.name, self.job, *words, script=script)
        else:
            self.process, self.log = self.pair.train(self.name, *words, script=script)

    def text(self) -> str:
        """The log since the fault."""
        return self.log.read_text()[self.seen :]

    def strikes(self, step: int = 10) -> None:
        """Wait until a checkpoint of this step, or two shards, and a further step are there; the fault happens now."""
        if self.phase != "shards":
            self.wait(self.checkpoint(step).exists)
        self.wait(lambda: self.step() > (SHARD if self.phase == "shards" else step))
        self.happens()

    def happens(self) -> None:
        """Note that the fault happens now."""
        self.reached = self.step()
        self.seen = len(self.log.read_text())
        self.before = self._shards()
        self.at = time.monotonic()

    def noticed(self, words: str) -> str:
        """Wait for the message, and note it with the seconds that it took; return the line."""
        while not re.search(words, self.text()) and self.process.poll() is None and time.monotonic() - self.at < 300:
            time.sleep(0.02)
        found = re.search(f".*(?:{words}).*", self.text())
        assert found, self.text()[-3000:]
        self.figures["seconds_to_notice"] = round(time.monotonic() - self.at, 1)
        self.figures["message"] = re.sub(r"/\S+/", "", found[0])[:300]
        return found[0]

    def stop(self) -> None:
        """Ask the run to stop, as a user would."""
        if self.submitted:
            words = ["ray", "job", "stop", f"--address={SERVER}", self.job]
            self.pair.hosts["one"].start(*words, log=self.pair.folder / "stop.log", **TOKEN)
        else:
            self.kill(signal.SIGTERM)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the command that drives the run."""
        number = self.pair.driver(self.name, self.process)
        assert number is not None, self.log.read_text()[-3000:]
        os.kill(number, how)

    def ended(self, seconds: float = 120) -> None:
        """Wait until the command has ended with one line, and not as one that has done its work."""
        status = self.process.wait(seconds)
        said = self.text()
        assert status == 2 or self.submitted, said[-3000:]  # `ray job submit` has a status of its own
        assert "Traceback" not in said, said[-3000:]
        assert len(set(re.findall("^error: .*", said, re.M))) == 1, said[-3000:]  # which that repeats

    def gone(self) -> None:
        """Wait until the command is gone, however it ended."""
        self.process.wait(60)

    def again(self) -> None:
        """Start the same command once more, and follow it to its end."""
        self.start()
        self.goes_on()

    def goes_on(self) -> None:
        """Follow the run to the next step and to its end."""
        self.resumes()
        self.finishes()

    def resumes(self) -> None:
        """Wait for the next step, and note the seconds since the fault and the steps that were lost."""
        began = len(self.log.read_text())
        self.wait(lambda: bool(re.search(r"\] \d+/", self.log.read_text()[began:])))
        self.figures["seconds_to_resume"] = round(time.monotonic() - self.at, 1)
        if self.phase != "shards":
            step = int(re.search(r"\] (\d+)/", self.log.read_text()[began:])[1])
            origins = re.findall(r"checkpoints/\w+: goes on from step (\d+)", self.text())
            self.figures["steps_lost"] = max(0, self.reached - (int(origins[-1]) if origins else step - 1))

    def finishes(self, equal: bool = True) -> None:
        """Wait for the end, and compare what was made with what the unbroken run made."""
        assert self.process.wait(600) == 0, self.text()[-3000:]
        made = self._made("reference"), self._made(self.name)
        same = made[0].keys() == made[1].keys() and all(torch.equal(made[0][name], made[1][name]) for name in made[0])
        if self.phase == "shards":
            now = self._shards()
            self.figures["steps_lost"] = SHARD * sum(now[path] != written for path, written in self.before.items())
        self.figures |= {"recovered": True, "result_equal": same}
        assert same or not equal
        assert self.figures["steps_lost"] <= 10
        assert not [path for path in self.run.rglob("*") if path.name.endswith(".tmp")]

    def checkpoint(self, step: int) -> Path:
        """The manifest of a checkpoint."""
        return self.run / "checkpoints" / self.phase / f"step_{step:08d}" / "manifest.json"

    def process_of(self, kind: str, hosts: tuple[str, ...] = ("two",)) -> tuple[int, str]:
        """The process of an actor or task of Ray on one of these hosts, and the host. Waits for it: tasks come and go."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for host in hosts:
                for number in family(self.pair.hosts[host].first):
                    with contextlib.suppress(OSError):
                        if Path(f"/proc/{number}/cmdline").read_text().startswith(f"ray::{kind}"):
                            return number, host
        raise AssertionError(f"no {kind} on {hosts}")

    def step(self) -> int:
        """The last step that the log reports."""
        found = re.findall(rf"\] (\d+)/{STEPS[self.phase]}", self.log.read_text())
        return int(found[-1]) if found else 0

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, while the command is at work."""
        began = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() - began < 600, self.log.read_text()[-3000:]
            time.sleep(0.02)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Measure, while the body runs, the longest time after the fault in which the command is at work and says nothing."""
        done = threading.Event()

        def listen() -> None:
            size, heard, process = 0, time.monotonic(), self.process
            while not done.wait(0.2):
                now = time.monotonic()
                if (found := self.log.stat().st_size) != size or self.process is not process or not self.at:
                    size, heard, process = found, now, self.process
                elif process.poll() is None:
                    silent = max(float(self.figures.get("seconds_silent", 0.0)), now - heard)
                    self.figures["seconds_silent"] = round(silent, 1)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def close(self) -> None:
        """End what may still be at work."""
        if (number := self.pair.driver(self.name, self.process)) is not None:
            os.kill(number, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)

    def _shards(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.run.glob("set/*.tar")}

    def _made(self, name: str) -> dict[str, torch.Tensor]:
        """What a run has made: weights, or the bytes of all files of a shard set."""
        run = self.pair.folder / "runs" / name
        if self.phase != "shards":
            return load_file(run / MADE[self.phase] / "weights.safetensors")
        files = [path for path in (run / "set").iterdir() if path.suffix == ".tar" or path.name == "manifest.json"]
        return {path.name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in files}
