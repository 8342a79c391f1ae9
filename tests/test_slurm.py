"""launch/slurm/train.sbatch: its steps with stand-ins for all commands, then real runs on a real Ray of two hosts.

In the second part the scheduler alone is replaced (tests/scheduler.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from pidscale.cluster import gather
from pidscale.cluster.room import Host
from pidscale.config import UserError
from tests.hosts import LACKING, POSSIBLE
from tests.pair import Pair, until
from tests.scheduler import Scheduler, inner, write_commands
from tests.scripts import LAUNCH, family, tiny

JOB = LAUNCH / "slurm" / "train.sbatch"

# ---- waiting for hosts


def test_hosts_that_do_not_join_are_counted_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(gather, "connect", lambda patience: None)
    monkeypatch.setattr(gather, "address", lambda: "10.0.0.1:20007")
    monkeypatch.setattr(gather, "hosts", lambda: [Host("one", {}, {}), Host("three", {}, {})])
    gather.gather(2, 0.0, "see ray.log")
    assert capsys.readouterr().out == "2 hosts with Ray: one, three\n"
    with pytest.raises(
        UserError, match=r"^2 of 3 hosts have joined .* 10.0.0.1:20007 within 0 s \(one, three\); see ray.log$"
    ):
        gather.gather(3, 0.0, "see ray.log")


# ---- with stand-ins for all commands

STAND_INS = {
    "ray": """
if [[ $1 == get-auth-token ]]; then echo -n made-token; exit; fi
ended() { echo "Ray stopped" >>ended; exit; }
if [[ -n "${LOSES:-}" ]]; then trap 'trap ended TERM' TERM; else trap ended TERM; fi
echo "$*, $RAY_AUTH_MODE $RAY_AUTH_TOKEN" >>started
while true; do sleep 0.05; done
""",
    "srun": """
while [[ $1 == -* ]]; do [[ $1 != --nodelist=* ]] || echo "srun on ${1#*=}" >>started; shift; done
exec "$@"
""",
    "python": """
echo "$*" >>gathered
sleep "${GATHER_SECONDS:-0}"
until [[ $(grep -c "^start" started) == "$3" ]]; do sleep 0.05; done
exit "${GATHER_STATUS:-0}"
""",
    "pidscale": """
trap 'echo checkpoint >>ended; exit 2' TERM
echo "$RAY_ADDRESS: $*" >>commands
for ((n = 0; n < ${STEPS:-1}; n++)); do sleep 0.05; done
exit "${STATUS:-0}"
""",
    "getent": 'echo "127.0.1.1 STREAM one"; echo "10.0.0.1 STREAM one"',
}


class Job:
    """Submits the script; it works in a folder, where the stand-ins write what they were asked."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.commands = write_commands(folder / "bin")
        for name, text in STAND_INS.items():
            (self.commands / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (self.commands / name).chmod(0o755)

    def submit(self, *words, nodes="one,two", **more) -> subprocess.Popen:
        known = {"PATH": f"{self.commands}{os.pathsep}{os.environ['PATH']}", "HOME": str(self.folder)}
        known |= {"SLURM_JOB_ID": str(self.port - 20000), "SLURM_JOB_NODELIST": nodes}
        known |= {"SCHEDULER": str(self.folder / "slurm"), "PIDSCALE_HEAD_IP": "127.0.0.1"}
        return subprocess.Popen(
            ["bash", str(JOB), *words],
            cwd=self.folder,
            env=known | more,
            stdout=(self.folder / "out").open("w"),
            stderr=subprocess.STDOUT,
        )

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    def wait(self, name: str, word: str = "", times: int = 1) -> None:
        """Until stand-ins have written lines that begin with a word to a file."""
        until = time.monotonic() + 20
        while sum(line.startswith(word) for line in self.lines(name)) < times:
            assert time.monotonic() < until, (name, self.lines("out"))
            time.sleep(0.02)


@pytest.fixture
def job(tmp_path):
    """Something listens where the head of Ray would, on a port that belongs to a job number."""
    with socket.socket() as listener:
        for port in range(20000 + os.getpid() % 9000, 30000):
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            break
        listener.listen()
        yield Job(tmp_path, port)


def test_ray_starts_on_all_nodes_and_the_exit_status_is_that_of_the_command(job):
    process = job.submit("train", "run.name=a b", STATUS="7", PIDSCALE_RAY_OPTIONS="--object-store-memory=1000")
    assert process.wait(30) == 7, job.lines("out")
    common = "--num-cpus=[0-9]+ --disable-usage-stats"
    head = rf"start --block {common} --head --node-ip-address=127.0.0.1 --port={job.port} --include-dashboard=false"
    other = rf"start --block {common} --address=127.0.0.1:{job.port}"
    found = "\n".join(sorted(job.lines("started"), key=lambda line: ("--head" in line, line)))
    rest = "--object-store-memory=1000, token made-token"
    assert re.fullmatch(rf"srun on two\n{other} {rest}\n{head} {rest}", found), found
    assert job.lines("commands") == [f"127.0.0.1:{job.port}: train run.name=a b"]
    assert job.lines("ended") == ["Ray stopped"] * 2 and not job.lines("slurm.requeued")
    (asked,) = job.lines("gathered")
    assert asked.startswith("-m pidscale.cluster.gather 2 300 ") and "ray-" in asked


def test_one_node_needs_no_srun_and_loopback_is_not_its_address(job):
    assert job.submit("train", nodes="one", PIDSCALE_HEAD_IP="").wait(30) == 0, job.lines("out")
    assert job.lines("commands") == [f"10.0.0.1:{job.port}: train"]
    assert len(job.lines("started")) == len(job.lines("ended")) == 1


@pytest.mark.parametrize("again", ["", "1"])
def test_the_time_limit_asks_for_a_checkpoint_and_queues_the_job_again_if_it_should(job, again):
    process = job.submit("train", STEPS="1000", PIDSCALE_REQUEUE=again)
    job.wait("commands")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 2, job.lines("out")
    assert job.lines("ended") == ["checkpoint", "Ray stopped", "Ray stopped"]
    assert job.lines("slurm.requeued") == ([str(job.port - 20000)] if again else [])


def test_a_cancelled_job_asks_for_a_checkpoint_and_is_not_queued_again(job):
    process = job.submit("train", STEPS="1000", PIDSCALE_REQUEUE="1")
    job.wait("commands")
    process.terminate()
    assert process.wait(30) == 2 and not job.lines("slurm.requeued")
    assert job.lines("ended") == ["checkpoint", "Ray stopped", "Ray stopped"]


def test_ray_is_stopped_if_nodes_are_missing_or_the_job_ends_while_they_join(job):
    assert job.submit("train", GATHER_STATUS="2").wait(30) == 2
    assert job.lines("ended") == ["Ray stopped"] * 2 and not job.lines("commands")
    (job.folder / "ended").unlink()
    (job.folder / "started").unlink()
    (job.folder / "gathered").unlink()
    process = job.submit("train", GATHER_SECONDS="60")
    job.wait("started", "start ", times=2)
    job.wait("gathered")
    process.terminate()
    assert process.wait(30) == 143 and job.lines("ended") == ["Ray stopped"] * 2 and not job.lines("commands")


def test_a_signal_that_a_process_lost_as_it_started_is_sent_once_more(job):
    process = job.submit("train", STEPS="1000", LOSES="1")
    job.wait("commands")
    process.terminate()
    assert process.wait(60) == 2, job.lines("out")
    assert job.lines("ended") == ["checkpoint", "Ray stopped", "Ray stopped"]


def test_a_job_without_a_command_or_an_allocation_is_refused(job):
    assert job.submit().wait(30) == 2 and job.lines("out")[0].startswith("error: expected a pidscale command")
    assert job.submit("train", nodes="").wait(30) == 2 and job.lines("out")[0].startswith("error: no SLURM allocation")
    assert not job.lines("started")


# ---- with a real Ray on two hosts


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Two hosts without Ray, and what answers `srun`."""
    folder = tmp_path_factory.mktemp("slurm")
    pair = Pair(folder)
    scheduler = Scheduler(folder, pair.hosts)
    try:
        yield pair, scheduler
    finally:
        pair.close()
        scheduler.close()


def _submit(slurm, number: int, nodes: str, **more):
    """Submit the training of a teacher; return the process and its log."""
    pair, scheduler = slurm
    log = pair.folder / f"job{number}.log"
    words = tiny(pair.folder, "job", "teacher.steps=150", "teacher.checkpoint_every=150", "teacher.evaluate_every=150")
    words += ["cluster.environment.GLOO_SOCKET_IFNAME=eth0"]
    own = {"RAY_TMPDIR": "/tmp/ray", "PIDSCALE_RAY_OPTIONS": "--object-store-memory=100000000"} | more
    return pair.hosts["one"].start(
        "bash", str(JOB), "train", *words, log=log, **scheduler.environment(nodes, **own)
    ), log


def _ray_processes(slurm, seconds: float = 30) -> list[str]:
    """The command lines of Ray's processes on both hosts; of those that end within some seconds, none.

    Ray's agents end by themselves once their raylet is gone.
    """
    end = time.monotonic() + seconds
    while True:
        lines = []
        for number in [number for host in slurm[0].hosts.values() for number in family(host.outer.pid)]:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                lines.append(Path(f"/proc/{number}/cmdline").read_text().replace("\0", " "))
        found = [line for line in lines if "raylet" in line or "gcs_server" in line or line.startswith("ray::")]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not POSSIBLE, reason=LACKING)
def test_a_job_on_two_hosts_stops_at_its_time_limit_and_goes_on_to_its_end(slurm):
    pair, scheduler = slurm
    run = pair.folder / "runs" / "job"
    process, log = _submit(slurm, 1, "one,two", PIDSCALE_REQUEUE="1")
    until(log, r"\d+/150 ", process)
    assert "2 hosts with Ray: one, two" in log.read_text()
    os.kill(inner(process), signal.SIGUSR1)
    assert process.wait(120) == 2, log.read_text()[-3000:]
    assert re.search(r"teacher stopped at step \d+ of 150 with a checkpoint", log.read_text()), log.read_text()[-3000:]
    (manifest,) = (run / "checkpoints" / "teacher").glob("step_*/manifest.json")
    assert json.loads(manifest.read_text())["world"] == 2 and scheduler.requeued == ["7"]
    assert not _ray_processes(slurm)

    process, log = _submit(slurm, 2, "one,two")
    assert process.wait(400) == 0, log.read_text()[-3000:]
    assert "150/150" in log.read_text() and (run / "teacher" / "card.json").exists()
    assert scheduler.requeued == ["7"] and not _ray_processes(slurm)
