"""Phases of several runs at the same time, as many as the cluster has room for, each driven by a process of its own."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TextIO

import ray

from pidscale.cluster.fit import Stop, runs_at_once
from pidscale.cluster.joining import address, connect
from pidscale.cluster.phase import is_finished, run_phase
from pidscale.config import Settings, UserError
from pidscale.run.places import run_folder

_LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Job:
    """A phase of a run.

    Attributes:
        name: Name of the job, which begins its lines of output.
        phase: `teacher` or `distill`.
        settings: Settings of the run.
        after: Name of the job that makes the teacher; "" for none.
    """

    name: str
    phase: str
    settings: Settings
    after: str = ""


@dataclass(frozen=True)
class _Driver:
    """A process that drives a job.

    Attributes:
        job: The job.
        process: The process.
        said: Receives the message of a UserError.
        at_once: Number of such jobs that the cluster has room for.
    """

    job: Job
    process: SpawnProcess
    said: Connection
    at_once: int

    def reason(self) -> str:
        """Return why the process has ended; "" if its job is finished."""
        self.process.join()
        code = self.process.exitcode
        if code == 0:
            return ""
        try:
            return str(self.said.recv())
        except EOFError:
            how = f"signal {-code}" if code is not None and code < 0 else f"status {code}, see above"
            return f"{self.job.name}: its process ended with {how}; the same command goes on"


def run_together(jobs: Sequence[Job], at_once: int, stop: Stop, progress: Callable[[int, str], None]) -> dict[str, str]:
    """Run the jobs that are not finished. A job waits for the one that makes its teacher, and fails with it.

    Each job has a process that drives it, joins this process's cluster and ends with this process. The output of several at a
    time has the job's name before each line.

    Args:
        jobs: The jobs, in the order in which they begin.
        at_once: Maximum number of jobs at the same time.
        stop: Whether the user asked to stop; all jobs then write a checkpoint.
        progress: Called with the number of jobs that have ended and the names of those at work.

    Returns:
        The reasons of the jobs that failed, by name.

    Raises:
        UserError: A job cannot begin, or the user asked to stop.
    """
    failed: dict[str, str] = {}
    waiting = list(jobs)
    with stop.listening(), _drivers() as drivers:
        while waiting or drivers:
            for job in _ready(waiting, drivers):
                if job.after in failed:
                    failed[job.name] = failed[job.after]
                elif drivers and len(drivers) >= _room(job, at_once, drivers):
                    break
                elif not _is_over(job, failed, stop):
                    drivers.append(_start(job, _room(job, at_once, drivers)))
                waiting.remove(job)
            progress(len(jobs) - len(waiting) - len(drivers), " ".join(one.job.name for one in drivers))
            wait([one.process.sentinel for one in drivers], _LOOK_EVERY)
            for one in [one for one in drivers if not one.process.is_alive()]:
                drivers.remove(one)
                if reason := one.reason():
                    _keep(reason, one.job, failed, stop)
            if stop():
                raise UserError(_ended(drivers) or "stopped between two runs; the same command goes on with the next")
    return failed


def _room(job: Job, at_once: int, drivers: Sequence[_Driver]) -> int:
    """Return the number of jobs at the same time that the cluster has room for, this one among them."""
    connect()
    return max(1, min([at_once, runs_at_once(job.phase, job.settings), *(one.at_once for one in drivers)]))


def _is_over(job: Job, failed: dict[str, str], stop: Stop) -> bool:
    """Return whether a job is finished already, or cannot go on."""
    try:
        if not is_finished(job.phase, job.settings):
            return False
    except UserError as error:
        _keep(str(error), job, failed, stop)
    else:
        print(f"{job.name}: finished already in {run_folder(job.settings)}", flush=True)
    return True


def _keep(reason: str, job: Job, failed: dict[str, str], stop: Stop) -> None:
    """Keep the reason why a job failed; UserError if it had not begun, or if the user asked to stop."""
    if stop() or not (run_folder(job.settings) / f"{job.phase}.json").exists():
        raise UserError(reason)
    failed[job.name] = reason
    print(f"error: {job.name} could not be trained: {reason}", flush=True)


def _ready(waiting: Sequence[Job], drivers: Sequence[_Driver]) -> list[Job]:
    """Return the jobs whose teacher is made, or cannot be made."""
    open_jobs = {job.name for job in waiting} | {one.job.name for one in drivers}
    return [job for job in waiting if job.after not in open_jobs]


@contextmanager
def _drivers() -> Iterator[list[_Driver]]:
    """A list of processes; those that are left at the end are asked to stop with a checkpoint."""
    drivers: list[_Driver] = []
    try:
        yield drivers
    finally:
        _ended(drivers)


def _ended(drivers: list[_Driver]) -> str:
    """Ask processes to stop, wait for their ends, and return the reason of the first that was not finished."""
    for one in drivers:
        one.process.terminate()
    reasons = [one.reason() for one in drivers]
    drivers.clear()
    return next((reason for reason in reasons if reason), "")


def _start(job: Job, at_once: int) -> _Driver:
    """Start the process that drives a job."""
    context = multiprocessing.get_context("spawn")
    said, says = context.Pipe(duplex=False)
    joined = address() or ray.get_runtime_context().gcs_address
    prefix = f"{job.name}: " if at_once > 1 else ""
    process = context.Process(target=_drive, args=(job, joined, prefix, says), name=job.name)
    process.start()
    says.close()
    return _Driver(job, process, said, at_once)


def _drive(job: Job, joined: str, prefix: str, says: Connection) -> None:
    """Run a job in this process, which ends with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["RAY_ADDRESS"] = joined
    if prefix:
        sys.stdout = _Prefixed(sys.stdout, prefix)
    try:
        run_phase(job.phase, job.settings)
    except UserError as error:
        says.send(str(error))
        sys.exit(2)


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, however that was."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Prefixed(io.TextIOBase):
    """Output with a prefix before each line.

    Args:
        out: Where it is written.
        prefix: The prefix.
    """

    def __init__(self, out: TextIO, prefix: str) -> None:
        self.out = out
        self.prefix = prefix
        self.begun = ""  # of a line that has no end yet

    def write(self, text: str) -> int:
        """Write the lines that have an end; keep the rest."""
        *lines, self.begun = (self.begun + text).split("\n")
        self.out.write("".join(f"{self.prefix}{line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        """Flush what is written."""
        self.out.flush()
