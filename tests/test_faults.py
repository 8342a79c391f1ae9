"""Losses of every kind during runs on two hosts, with what they cost.

Every trial starts a run, lets a fault happen after its first checkpoint, and follows the run, or the same command once more,
to its end. It notes whether the run recovered, the steps that it lost, the seconds until it said what had happened and until
it took a step again, and whether its weights equal those of the unbroken run. `python -m benchmarks.proofs.faults` repeats
the trials and writes the figures to a file; without --trials, this file is not collected.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.hosts import LACKING, POSSIBLE
from tests.pair import HEAD, TOKEN, Pair, driver, until
from tests.scripts import family

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not POSSIBLE, reason=LACKING),
]
STEPS = {"teacher": 150, "distill": 80}
SCRIPTS = {"teacher": "train_teacher", "distill": "distill"}
MADE = {"teacher": "teacher", "distill": "student"}
AGAIN = "the same command goes on"
LOST = r"lost .*; failure 1 of cluster.max_failures=2; goes on from step"
NUMBERS = itertools.count()


@dataclass
class Trial:
    """One run with a fault.

    Attributes:
        pair: The two hosts.
        phase: `teacher` or `distill`.
        name: The name of the run.
        more: Settings of the run beside those of every trial.
        figures: What the trial has measured.
    """

    pair: Pair
    phase: str
    name: str
    more: list[str]
    figures: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run = self.pair.folder / "runs" / self.name
        self.at = 0.0  # when the fault happened
        self.reached = 0  # the last step that was reported before
        self.seen = 0  # characters of the log that were there before
        self.start()

    def start(self) -> None:
        """Start the run, or the same command once more."""
        teacher = f"distill.teacher={self.pair.folder}/runs/reference/teacher"
        own = [f"{self.phase}.steps={STEPS[self.phase]}", "cluster.max_failures=2", "cluster.wait=120", *self.more]
        own += [teacher] if self.phase == "distill" else []
        self.process, self.log = self.pair.train(self.name, *own, script=SCRIPTS[self.phase])

    def text(self) -> str:
        """The log since the fault."""
        return self.log.read_text()[self.seen :]

    def checkpoint(self, step: int = 10) -> Path:
        """The manifest of a checkpoint."""
        return self.run / "checkpoints" / self.phase / f"step_{step:08d}" / "manifest.json"

    def after_checkpoint(self) -> None:
        """Wait until the first checkpoint is sealed and a further step is reported."""
        self._wait(self.checkpoint().exists)
        self._wait(lambda: self._step() > 10)

    def happens(self) -> None:
        """Note that the fault happens now."""
        self.reached = self._step()
        self.seen = len(self.log.read_text())
        self.at = time.monotonic()

    def strikes(self) -> None:
        """Wait for the first checkpoint and a further step, and note that the fault happens now."""
        self.after_checkpoint()
        self.happens()

    def goes_on(self) -> None:
        """Follow the run to the next step and to its end."""
        self.resumes()
        self.finishes()

    def noticed(self, words: str) -> str:
        """Wait for the message, and note it with the seconds that it took; return the line."""
        while not re.search(words, self.text()) and self.process.poll() is None and time.monotonic() - self.at < 300:
            time.sleep(0.02)
        found = re.search(f".*(?:{words}).*", self.text())
        assert found, self.text()[-3000:]
        self.figures["seconds_to_notice"] = round(time.monotonic() - self.at, 1)
        line = re.sub(r"/\S+/", "", found[0])
        self.figures["message"] = line.split("\r")[-1][:300]
        return found[0]

    def ended(self, seconds: float = 120) -> None:
        """Wait until the command has ended with one line and status 2."""
        assert self.process.wait(seconds) == 2, self.text()[-3000:]
        said = self.text()
        assert "Traceback" not in said and len(re.findall("^error: ", said, re.M)) == 1, said[-3000:]

    def gone(self) -> None:
        """Wait until the command is gone, however it ended."""
        self.process.wait(60)

    def resumes(self, expected: int | None = None) -> None:
        """Wait for the next step, and note the seconds since the fault and the steps that were lost."""
        began = len(self.log.read_text())
        self._wait(lambda: bool(re.search(r"\] \d+/", self.log.read_text()[began:])))
        step = int(re.search(r"\] (\d+)/", self.log.read_text()[began:])[1])
        self.figures["seconds_to_resume"] = round(time.monotonic() - self.at, 1)
        self.figures["steps_lost"] = max(0, self.reached - step + 1)
        if expected is not None:
            assert step > expected

    def finishes(self, equal: bool = True) -> None:
        """Wait for the end, and compare the weights with those of the unbroken run."""
        assert self.process.wait(600) == 0, self.text()[-3000:]
        first, second = (
            load_file(self.pair.folder / "runs" / name / MADE[self.phase] / "weights.safetensors")
            for name in ("reference", self.name)
        )
        same = first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
        self.figures |= {"recovered": True, "result_equal": same}
        assert same or not equal
        assert self.figures["steps_lost"] <= 10
        assert not list((self.run / "checkpoints").glob("*/*.tmp"))

    def process_of(self, kind: str, hosts: tuple[str, ...] = ("two",)) -> int:
        """The process of an actor of Ray on one of these hosts."""
        for number in (number for host in hosts for number in family(self.pair.hosts[host].first)):
            try:
                title = Path(f"/proc/{number}/cmdline").read_text()
            except OSError:
                continue
            if title.startswith(f"ray::{kind}"):
                return number
        raise AssertionError(f"no {kind} on {hosts}")

    def _step(self) -> int:
        """The last step that the log reports."""
        found = re.findall(rf"\] (\d+)/{STEPS[self.phase]}", self.log.read_text())
        return int(found[-1]) if found else 0

    def _wait(self, condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() - began < 600, self.log.read_text()[-3000:]
            time.sleep(0.02)


# ---- faults: what happens, and what the run then does


def worker_killed(trial: Trial) -> None:
    trial.strikes()
    os.kill(trial.process_of("RayTrainWorker"), signal.SIGKILL)
    trial.noticed(LOST)
    trial.goes_on()


def host_killed(trial: Trial) -> None:
    trial.strikes()
    trial.pair.hosts["two"].close()
    trial.noticed(LOST)
    trial.pair.replace_second()
    trial.goes_on()


def host_lost_for_good(trial: Trial) -> None:
    trial.strikes()
    trial.pair.hosts["two"].close()
    trial.noticed(LOST)
    trial.resumes()
    assert "goes on with cluster.workers=1" in trial.text()
    trial.finishes(equal=False)
    trial.pair.replace_second()


def network_cut(trial: Trial) -> None:
    trial.strikes()
    trial.pair.switch.cut(trial.pair.hosts["two"])
    trial.noticed(r"; failure 1 of cluster.max_failures=2; goes on from step")
    trial.pair.replace_second()
    trial.goes_on()


def worker_hangs(trial: Trial) -> None:
    trial.strikes()
    os.kill(trial.process_of("RayTrainWorker"), signal.SIGSTOP)
    trial.noticed(LOST)
    trial.goes_on()


def actor_killed(trial: Trial) -> None:
    """The steps of the worker wait for an actor that Ray starts again; none is lost."""
    trial.strikes()
    os.kill(trial.process_of("TeacherActor", ("one", "two")), signal.SIGKILL)
    trial.noticed("warning: teacher actor 0 was lost and started again")
    trial.resumes()
    trial.finishes(equal=False)  # one worker, and the unbroken run has two
    assert trial.figures["steps_lost"] == 0


def host_drained(trial: Trial) -> None:
    trial.strikes()
    notice = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=60"]
    log = trial.pair.folder / "drain.log"
    trial.pair.hosts["two"].run("ray", "drain-node", f"--address={HEAD}", *notice, log=log, **TOKEN)
    trial.noticed("host two is about to leave the cluster")
    until(trial.log, "stopped at step", trial.process)
    trial.pair.replace_second()
    trial.goes_on()


def command_stopped(trial: Trial) -> None:
    trial.strikes()
    os.kill(driver(trial.process), signal.SIGTERM)
    trial.noticed("stopped at step .* with a checkpoint")
    trial.ended()
    trial.start()
    trial.goes_on()


def command_killed(trial: Trial) -> None:
    trial.strikes()
    os.kill(driver(trial.process), signal.SIGKILL)
    trial.gone()
    trial.figures |= {"seconds_to_notice": None, "message": ""}  # nothing is left that could say something
    trial.start()
    trial.goes_on()


def head_lost(trial: Trial) -> None:
    trial.strikes()
    trial.pair.hosts["one"].close()
    trial.gone()
    trial.figures |= {"seconds_to_notice": None, "message": ""}  # nothing is left that could say something
    trial.pair.hosts["two"].close()
    trial.pair.plug_in("one")
    trial.pair.plug_in("two")
    trial.pair.start()
    trial.start()
    trial.goes_on()


def checkpoint_damaged(trial: Trial) -> None:
    trial._wait(trial.checkpoint(20).exists)
    trial.happens()
    os.kill(driver(trial.process), signal.SIGKILL)
    trial.gone()
    newest = sorted(trial.checkpoint().parent.parent.glob("step_????????"))[-1]
    part = newest / "rank-00001.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    trial.start()
    trial.noticed(r"warning: \S+rank-00001|warning: .*is missing or changed")
    trial.resumes()
    trial.figures["steps_lost"] = min(10, int(trial.figures["steps_lost"]))  # the damaged one is not a step of the run
    trial.finishes()


def disk_full(trial: Trial) -> None:
    trial.strikes()
    filler = trial.pair.folder / "runs" / "filler"
    free = shutil.disk_usage(filler.parent).free
    subprocess.run(["fallocate", "-l", str(free), str(filler)], check=True)
    trial.noticed(f"no room on the disk .*{AGAIN}")
    trial.ended()
    filler.unlink()
    trial.start()
    trial.goes_on()


def shard_damaged(trial: Trial) -> None:
    """Every read is checked, so that the next batch of a damaged shard ends the run; the restored shard lets it go on."""
    trial.strikes()
    shard = sorted((trial.pair.folder / "shards").glob("train-*.tar"))[0]
    whole = shard.read_bytes()
    data = bytearray(whole)
    for place in range(0, len(data), 64):
        data[place] ^= 1
    shard.write_bytes(bytes(data))
    try:
        trial.noticed(rf"error: .*{shard.name}")
        trial.ended()
        assert "failure" not in trial.text()
    finally:
        shard.write_bytes(whole)
    trial.start()
    trial.goes_on()


def steps_skipped(trial: Trial) -> None:
    trial.happens()
    trial.noticed(r"skipped \d+ steps in a row|is not finite|not finite")
    trial.ended()
    assert not (trial.run / MADE[trial.phase] / "card.json").exists()
    trial.figures |= {"recovered": True, "steps_lost": 0, "seconds_to_resume": None, "result_equal": None}


def mistake(trial: Trial) -> None:
    trial.happens()
    trial.noticed("error: ")
    trial.ended()
    assert "failure 1" not in trial.text()
    trial.figures |= {"recovered": True, "steps_lost": 0, "seconds_to_resume": None, "result_equal": None}


FAULTS: dict[str, tuple[Callable[[Trial], None], tuple[str, ...], list[str]]] = {
    "worker killed": (worker_killed, ("teacher", "distill"), []),
    "host killed, back later": (host_killed, ("teacher", "distill"), []),
    "host lost for good": (
        host_lost_for_good,
        ("teacher", "distill"),
        ["cluster.min_workers=1", "cluster.shrink_after=3"],
    ),
    "network of a host cut": (network_cut, ("teacher", "distill"), ["cluster.timeout=20"]),
    "worker hangs": (worker_hangs, ("teacher", "distill"), ["cluster.timeout=20"]),
    "teacher actor killed": (
        actor_killed,
        ("distill",),
        ["cluster.workers=1", "distill.source=actors", "distill.actors=1", "distill.ahead=1"],
    ),
    "host drained": (host_drained, ("teacher", "distill"), []),
    "command stopped": (command_stopped, ("teacher", "distill"), []),
    "command killed": (command_killed, ("teacher", "distill"), []),
    "head lost": (head_lost, ("teacher", "distill"), []),
    "checkpoint damaged": (checkpoint_damaged, ("teacher", "distill"), []),
    "disk full": (disk_full, ("teacher", "distill"), []),
    "shard damaged": (shard_damaged, ("teacher",), []),
    "every step skipped": (steps_skipped, ("teacher", "distill"), ["teacher.lr=1e8", "distill.lr=1e8"]),
    "user's mistake in a worker": (mistake, ("teacher",), ["teacher.sigma_max=1.0"]),
}
TRIALS = [(fault, phase) for fault, (_, phases, _) in FAULTS.items() for phase in phases]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two hosts whose runs are on a small disk of their own, and the unbroken run of both phases."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "runs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(folder / "runs")], check=True)
    made = None
    try:
        made = Pair(folder)
        made.start()
        for phase, script in SCRIPTS.items():
            process, log = made.train("reference", f"{phase}.steps={STEPS[phase]}", script=script)
            assert process.wait(600) == 0, log.read_text()[-3000:]
        yield made
    finally:
        if made is not None:
            made.close()
        subprocess.run(["umount", "--lazy", str(folder / "runs")], check=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each trial as often as --trials says."""
    metafunc.parametrize(("fault", "phase"), TRIALS * metafunc.config.getoption("--trials"))


def test_a_run_recovers_or_says_what_is_kept(pair, fault, phase, record_property):
    act, _, more = FAULTS[fault]
    trial = Trial(pair, phase, f"trial-{next(NUMBERS)}", more)
    try:
        act(trial)
    finally:
        for name, value in {"fault": fault, "phase": phase, "hosts": 2, **trial.figures}.items():
            record_property(name, value)
        if trial.process.poll() is None:
            os.kill(driver(trial.process), signal.SIGKILL)
            trial.process.wait(20)
        shutil.rmtree(trial.run, ignore_errors=True)
