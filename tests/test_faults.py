"""Losses of every kind during runs on two hosts, with what they cost.

Every trial (trial.py) starts a run, lets a fault happen after its first checkpoint, and follows the run, or the same command
once more, to its end. It notes whether the run recovered, the steps that it lost, the seconds until it said what had happened
and until it took a step again, and whether what it made equals what the unbroken run made. Each third trial of a fault is a
job that is submitted to Ray. `python -m benchmarks.proofs.faults` repeats the trials and writes the figures to a file;
without --trials, this file is not collected.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.hosts import LACKING, POSSIBLE
from tests.pair import HEAD, TOKEN, Pair, until
from tests.trial import SCRIPTS, Trial, settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not POSSIBLE, reason=LACKING),
]
AGAIN = "the same command (goes on|continues|starts again)"
LOST = r"lost .*; failure 1 of cluster.max_failures=2; goes on from step"
ENVIRONMENT = {"PIDSCALE_LOG_SECONDS": "0.2", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
EMPTY = ("-t", "tmpfs", "none")  # a disk of its own, as words of mount
NUMBERS = itertools.count()
BOTH = ("teacher", "distill")
ALL = (*BOTH, "shards")


# ---- faults: what happens, and what the run then does


def worker_killed(trial: Trial) -> None:
    trial.strikes()
    if trial.phase == "shards":  # Ray runs the task once more, and its progress line goes on
        os.kill(trial.process_of("make_shard")[0], signal.SIGKILL)
    else:
        os.kill(trial.process_of("RayTrainWorker")[0], signal.SIGKILL)
        trial.noticed(LOST)
    trial.goes_on()


def host_killed(trial: Trial) -> None:
    trial.strikes()
    trial.pair.hosts["two"].close()
    if trial.phase != "shards":
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
    os.kill(trial.process_of("RayTrainWorker")[0], signal.SIGSTOP)
    trial.noticed(LOST)
    trial.goes_on()


def actor_killed(trial: Trial) -> None:
    """The steps of the worker wait for an actor that Ray starts again; none is lost."""
    trial.strikes()
    os.kill(trial.process_of("TeacherActor", ("one", "two"))[0], signal.SIGKILL)
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
    trial.stop()
    if trial.phase == "shards":
        trial.noticed("interrupted; .*")
        trial.gone()
    else:
        trial.noticed("stopped at step .* with a checkpoint")
        trial.ended()
    trial.again()


def command_killed(trial: Trial) -> None:
    trial.strikes()
    trial.kill()
    trial.gone()
    trial.figures |= NO_MESSAGE
    trial.again()


def head_lost(trial: Trial) -> None:
    trial.strikes()
    trial.pair.hosts["one"].close()
    trial.gone()
    trial.figures |= NO_MESSAGE
    trial.pair.hosts["two"].close()
    trial.pair.plug_in("one")
    trial.pair.plug_in("two")
    trial.pair.start(jobs=True)
    trial.again()


def checkpoint_damaged(trial: Trial) -> None:
    trial.strikes(20)
    trial.kill()
    trial.gone()
    newest = sorted(trial.checkpoint(0).parent.parent.glob("step_????????"))[-1]
    part = newest / "rank-00001.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    trial.start()
    trial.noticed(r"warning: .*is missing or changed")
    trial.resumes()
    trial.figures["steps_lost"] = min(10, int(trial.figures["steps_lost"]))  # the damaged one is not a step of the run
    trial.finishes()


def disk_full(trial: Trial) -> None:
    trial.strikes()
    filler = trial.pair.folder / "runs" / "filler"
    try:
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:  # the run is writing too
            while file.write(bytes(2**20)):
                pass
        trial.noticed(f"[Nn]o (room|space).*{AGAIN}")
        trial.ended()
    finally:
        filler.unlink()
    trial.again()


@contextlib.contextmanager
def covered(trial: Trial, hosts: tuple[str, ...], *mounts: tuple[str, ...]) -> Iterator[None]:
    """Let hosts see something else where the runs are, while the body runs."""
    runs = str(trial.pair.folder / "runs")
    seeing = [trial.pair.hosts[name] for name in hosts]
    for host in seeing:
        for words in mounts:
            host.mount(*words, runs)
    try:
        yield
    finally:
        for host in seeing:
            host.unmount(runs)


def disk_read_only(trial: Trial) -> None:
    """Paths of the runs are read-only on both hosts; files that are open stay writable, as on a disk after an error."""
    trial.strikes()
    runs = str(trial.pair.folder / "runs")
    with covered(trial, ("one", "two"), ("--bind", runs), ("-o", "remount,bind,ro")):
        trial.noticed(f"read-only.*{AGAIN}")
        trial.ended()
    trial.again()


def disk_away(trial: Trial) -> None:
    """Both hosts see an empty folder where the runs were."""
    trial.strikes()
    with covered(trial, ("one", "two"), EMPTY):
        trial.noticed(f"error: .*{AGAIN}")
        trial.ended()
    trial.again()


def folder_not_shared(trial: Trial) -> None:
    """Host two has a disk of its own where host one has the runs. Nothing is trained."""
    trial.happens()
    with covered(trial, ("two",), EMPTY):
        trial.noticed("host two does not see what the driver has written there; name a run.folder")
        trial.ended()
    assert trial.step() == 0 and not list(trial.run.glob("checkpoints/*/*"))
    trial.figures |= ENDS


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
    trial.again()


def steps_skipped(trial: Trial) -> None:
    trial.happens()
    trial.noticed(r"skipped \d+ steps in a row|is not finite|not finite")
    trial.ended()
    assert not (trial.run / "teacher" / "card.json").exists() and not (trial.run / "student" / "card.json").exists()
    trial.figures |= ENDS


def mistake(trial: Trial) -> None:
    trial.happens()
    trial.noticed("error: ")
    trial.ended()
    assert "failure 1" not in trial.text()
    trial.figures |= ENDS


NO_MESSAGE = {"seconds_to_notice": None, "message": ""}  # nothing is left that could say something
ENDS = {"recovered": True, "steps_lost": 0, "seconds_to_resume": None, "result_equal": None}
SHRINKS = ["cluster.min_workers=1", "cluster.shrink_after=3"]
ACTOR = ["cluster.workers=1", "distill.source=actors", "distill.actors=1", "distill.ahead=1"]
FAULTS: dict[str, tuple[Callable[[Trial], None], tuple[str, ...], list[str]]] = {
    "worker killed": (worker_killed, ALL, []),
    "host killed, back later": (host_killed, ALL, []),
    "host lost for good": (host_lost_for_good, BOTH, SHRINKS),
    "network of a host cut": (network_cut, BOTH, ["cluster.timeout=20"]),
    "worker hangs": (worker_hangs, BOTH, ["cluster.timeout=20"]),
    "teacher actor killed": (actor_killed, ("distill",), ACTOR),
    "host drained": (host_drained, BOTH, []),
    "command stopped": (command_stopped, ALL, []),
    "command killed": (command_killed, ALL, []),
    "head lost": (head_lost, ALL, []),
    "checkpoint damaged": (checkpoint_damaged, BOTH, []),
    "disk full": (disk_full, ALL, []),
    "disk read-only": (disk_read_only, BOTH, []),
    "disk away": (disk_away, BOTH, []),
    "run folder not shared": (folder_not_shared, BOTH, []),
    "shard damaged": (shard_damaged, ("teacher",), []),
    "every step skipped": (steps_skipped, BOTH, ["teacher.lr=1e8", "distill.lr=1e8"]),
    "user's mistake in a worker": (mistake, ("teacher",), ["teacher.sigma_max=1.0"]),
}
TRIALS = [(fault, phase) for fault, (_, phases, _) in FAULTS.items() for phase in phases]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two hosts whose runs are on a small disk of their own, and the unbroken run of all phases."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "runs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(folder / "runs")], check=True)
    made = None
    try:
        made = Pair(folder, ENVIRONMENT)
        made.start(jobs=True)
        for phase, script in SCRIPTS.items():
            process, log = made.train("reference", *settings(made, phase, "reference"), script=script)
            assert process.wait(600) == 0, log.read_text()[-3000:]
        yield made
    finally:
        if made is not None:
            made.close()
        subprocess.run(["umount", "--lazy", str(folder / "runs")], check=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each trial as often as --trials says; the first of three is submitted as a job."""
    times = range(metafunc.config.getoption("--trials"))
    metafunc.parametrize(("fault", "phase", "submitted"), [(*one, not time % 3) for time in times for one in TRIALS])


def test_a_run_recovers_or_says_what_is_kept(pair, fault, phase, submitted, record_property):
    act, _, more = FAULTS[fault]
    trial = Trial(pair, phase, f"trial-{next(NUMBERS)}", more, submitted)
    try:
        with trial.listening():
            act(trial)
    finally:
        trial.close()
        figures = {"fault": fault, "phase": phase, "hosts": 2, "submitted": submitted, **trial.figures}
        for name, value in figures.items():
            record_property(name, value)
        shutil.rmtree(trial.run, ignore_errors=True)
