"""Reports of the workers to the driver: an actor that collects them, and the thread of the driver that reads them.

The actor runs on the driver's host, so that it is not lost with another host. Reports of an earlier attempt are ignored: its
workers may live on at a host without a connection. Knows Ray; must not know models or equations.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pidscale.cluster.repeat import repeated
from pidscale.cluster.room import SAY_EVERY
from pidscale.meter import ProgressLine
from pidscale.run.reporting import Request

SILENT = 25.0  # seconds, so that a log has a line within 30 s
BEAT = 5.0  # seconds between two signs of life of a worker


class Place(NamedTuple):
    """Location of a worker.

    Attributes:
        host: The name of the host.
        address: The address by which Ray knows the host.
        node: The name by which Ray knows the host.
        process: The number of the worker's process on the host.
        born: When that process began, as `birth` says it.
    """

    host: str
    address: str
    node: str = ""
    process: int = 0
    born: str = ""


@dataclass
class Reports:
    """Reports of the workers of the current attempt.

    Attributes:
        attempt: The number of the attempt.
        latest: The latest progress of the first worker: finished steps, all steps, and a note.
        places: Where workers run, by rank, of those that have started.
        silent: Seconds since the last sign of life of a worker, by rank, of those that are at work.
        texts: Lines for the terminal that have not been read yet.
        request: What the driver asks of the loop.
    """

    attempt: int = 0
    latest: tuple[int, int, str] | None = None
    places: dict[int, Place] = field(default_factory=dict)
    silent: dict[int, float] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    request: Request = Request.NOTHING


class Bulletin:
    """The actor: workers report to it and read requests, the driver reads it and makes requests."""

    def __init__(self) -> None:
        self.reports = Reports()
        self.alive: dict[int, float] = {}  # when a worker that is at work gave its last sign of life, by rank

    def begin(self, attempt: int) -> None:
        """Accept only reports of this attempt from now on."""
        self.reports = Reports(attempt, texts=self.reports.texts)
        self.alive = {}

    def started(self, attempt: int, rank: int, place: Place) -> None:
        """Report that a worker has started.

        Args:
            attempt: The attempt of the worker.
            rank: Its rank.
            place: Where it runs.
        """
        if attempt == self.reports.attempt:
            self.reports.places[rank] = place
            self.alive[rank] = time.monotonic()

    def beat(self, attempt: int, rank: int) -> None:
        """Report that the process of a worker is alive."""
        if attempt == self.reports.attempt and rank in self.alive:
            self.alive[rank] = time.monotonic()

    def left(self, attempt: int, rank: int) -> None:
        """Report that a worker has ended its work, or failed."""
        if attempt == self.reports.attempt:
            self.alive.pop(rank, None)

    def post(self, attempt: int, done: int, total: int, note: str) -> None:
        """Report the progress of the first worker.

        Args:
            attempt: The attempt of the worker.
            done: The number of finished steps.
            total: The number of all steps.
            note: What the live line shows besides.
        """
        if attempt == self.reports.attempt:
            self.reports.latest = (done, total, note)

    def ask(self, request: Request) -> None:
        """Ask something of the loop of the current attempt."""
        self.reports.request = request

    def asked(self, attempt: int) -> Request:
        """Return what is asked of the loop of an attempt: one that is over has to stop."""
        return self.reports.request if attempt == self.reports.attempt else Request.STOP

    def say(self, text: str) -> None:
        """Report a line for the terminal."""
        self.reports.texts.append(text)

    def read(self) -> Reports:
        """Return the reports; each line is returned once."""
        reports = self.reports
        now = time.monotonic()
        silent = {rank: now - last for rank, last in self.alive.items()}
        self.reports = replace(reports, texts=[])
        return replace(reports, silent=silent)


def open_bulletin() -> Any:
    """Start a bulletin on the host of this driver, and return its handle."""
    return _on(ray.get_runtime_context().get_node_id(), Bulletin).remote()


def _on(node: str, what: Any) -> Any:
    """Return a class or a function as an actor or a task of a host."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0)(what).options(scheduling_strategy=here)


def birth(process: int) -> str:
    """Return when a process of this host began, as its kernel counts; an empty string if that is not known."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return ""


def _kill(process: int, born: str) -> None:
    """Kill a process of this host, which may be stopped or stuck, unless its number is that of another one by now."""
    if born and birth(process) == born:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@dataclass
class Silence:
    """Notices that a loop has reported no further step for unusually long: `SILENT` s, or three times its longest interval.

    Attributes:
        step: The step of the latest report; None before the first one.
        since: When it was first seen; None before the first look.
        longest: The longest interval between two reports so far, in seconds.
        said: The seconds of silence that have been said.
    """

    step: int | None = None
    since: float | None = None
    longest: float = 0.0
    said: float = 0.0

    def after(self, step: int | None, now: float) -> float:
        """Return the seconds of silence that are to be said now, each further `SILENT` s once; 0 if none are.

        Args:
            step: The step of the latest report; None before the first one.
            now: The time in seconds.

        Returns:
            The seconds.
        """
        if self.since is None or step != self.step:
            if self.since is not None and self.step is not None:
                self.longest = max(self.longest, now - self.since)
            self.step = step
            self.since = now
            self.said = 0.0
            return 0.0
        silent = now - self.since
        if silent < max(self.said + SILENT, 3 * self.longest):
            return 0.0
        self.said = silent
        return silent


class Watch:
    """The driver's side during one attempt: reads the bulletin, shows the live line, and ends attempts that cannot start.

    Args:
        label: The label of the live line.
        bulletin: The handle of the actor.
        asks: Returns what the driver asks of the loop.
        missing: Returns what is missing while no worker has started, for a line every 15 s.
        abandon: Ends the attempt; called once if a stop is asked for before a worker has started.
        patience: Seconds without a sign of life after which a worker is ended.
        remark: Returns a line about where workers run, "" for none; it is printed once.
    """

    def __init__(
        self,
        label: str,
        bulletin: Any,
        asks: Callable[[], Request],
        missing: Callable[[], str],
        abandon: Callable[[], None],
        patience: float,
        remark: Callable[[Mapping[int, Place]], str] = lambda places: "",
    ) -> None:
        self.label = label
        self.bulletin = bulletin
        self.asks = asks
        self.asked = Request.NOTHING  # the latest request that the bulletin has
        self.missing = missing
        self.abandon = abandon
        self.patience = patience
        self.hung: dict[int, bool] = {}  # workers without a sign of life, by rank, and whether they have been ended
        self.remark = remark
        self.remarked = False
        self.reports = Reports()
        self.line: ProgressLine | None = None
        self.began = time.monotonic()
        self.reported = 0.0  # seconds after `began` of the last line about missing workers
        self.silence = Silence()
        self.abandoned = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watch]:
        """Watch in a thread while the body runs."""

        def watch() -> None:
            self._ask()
            self._read()
            self._wait()
            self._say_silence()
            self._end_hung()

        try:
            with repeated(watch, 0.5):
                yield self
        finally:
            self._read()
            if self.line is not None:
                self.line.close()

    def _ask(self) -> None:
        """Pass a new request on to the bulletin."""
        asks = self.asks()
        if asks is not self.asked:
            self.asked = asks
            self.bulletin.ask.remote(asks)

    def _read(self) -> None:
        """Read the bulletin, and show what is new."""
        with contextlib.suppress(ray.exceptions.RayError):
            self.reports = ray.get(self.bulletin.read.remote(), timeout=10)
            for text in self.reports.texts:
                print(text, flush=True)
            if not self.remarked and (line := self.remark(self.reports.places)):
                self.remarked = True
                print(line, flush=True)
            if self.reports.latest is not None:
                done, total, note = self.reports.latest
                self.line = self.line or ProgressLine(self.label, total)
                self.line.show(done, note)

    def _say_silence(self) -> None:
        """Say that no step has ended for a while, since a worker may hang; collectives end after their own timeout."""
        latest = self.reports.latest
        silent = (
            self.silence.after(None if latest is None else latest[0], time.monotonic()) if self.reports.places else 0.0
        )
        if silent:
            where = "before the first step" if latest is None else f"after step {latest[0]} of {latest[1]}"
            print(f"{self.label}: nothing heard for {silent:.0f} s {where}", flush=True)

    def _end_hung(self) -> None:
        """End workers whose process gives no sign of life; the others may wait for them where no collective ends by itself.

        Ray Train then reports them as lost. Two looks have to agree: a bulletin that was held up itself reads old ones first.
        """
        silent = {rank: seconds for rank, seconds in self.reports.silent.items() if seconds > self.patience}
        for rank, seconds in silent.items():
            if self.hung.get(rank) is False:
                place = self.reports.places[rank]
                where = f"worker {rank} on host {place.host}"
                print(f"{self.label}: {where} has given no sign of life for {seconds:.0f} s and is ended", flush=True)
                _on(place.node, _kill).remote(place.process, place.born)
        self.hung = {rank: rank in self.hung for rank in silent}

    def _wait(self) -> None:
        """Say what is missing while no worker has started, and abandon the attempt if a stop is asked for."""
        if self.reports.places:
            return
        waited = time.monotonic() - self.began
        if waited - self.reported >= SAY_EVERY:
            self.reported = waited
            with contextlib.suppress(Exception):  # the attempt itself reports a cluster that does not answer
                print(f"{self.label}: workers are starting ({waited:.0f} s): {self.missing()}", flush=True)
        if self.asked is Request.STOP and not self.abandoned:
            self.abandoned = True
            self.abandon()
