"""Reports of the workers to the driver: an actor that collects them, and the thread of the driver that reads them.

The actor runs on the driver's host, so that it is not lost with another host. Reports of an earlier attempt are ignored: its
workers may live on at a host without a connection. Knows Ray; must not know models or equations.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pidscale.cluster.room import SAY_EVERY
from pidscale.meter import ProgressLine


class Place(NamedTuple):
    """Location of a worker.

    Attributes:
        host: The name of the host.
        address: The address by which Ray knows the host.
    """

    host: str
    address: str


@dataclass
class Reports:
    """Reports of the workers of the current attempt.

    Attributes:
        attempt: The number of the attempt.
        latest: The latest progress of the first worker: finished steps, all steps, and a note.
        places: Where workers run, by rank, of those that have started.
        texts: Lines for the terminal that have not been read yet.
    """

    attempt: int = 0
    latest: tuple[int, int, str] | None = None
    places: dict[int, Place] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


class Bulletin:
    """The actor: workers report to it, and the driver reads it."""

    def __init__(self) -> None:
        self.reports = Reports()

    def begin(self, attempt: int) -> None:
        """Accept only reports of this attempt from now on."""
        self.reports = Reports(attempt, texts=self.reports.texts)

    def started(self, attempt: int, rank: int, place: Place) -> None:
        """Report that a worker has started.

        Args:
            attempt: The attempt of the worker.
            rank: Its rank.
            place: Where it runs.
        """
        if attempt == self.reports.attempt:
            self.reports.places[rank] = place

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

    def say(self, text: str) -> None:
        """Report a line for the terminal."""
        self.reports.texts.append(text)

    def read(self) -> Reports:
        """Return the reports; each line is returned once."""
        reports = self.reports
        self.reports = Reports(reports.attempt, reports.latest, reports.places)
        return reports


def open_bulletin() -> Any:
    """Start a bulletin on the host of this driver, and return its handle."""
    here = NodeAffinitySchedulingStrategy(str(ray.get_runtime_context().get_node_id()), soft=False)
    return ray.remote(num_cpus=0)(Bulletin).options(scheduling_strategy=here).remote()


class Watch:
    """The driver's side during one attempt: reads the bulletin, shows the live line, and ends attempts that cannot start.

    Args:
        label: The label of the live line.
        bulletin: The handle of the actor.
        stopped: Whether the user asked to stop.
        missing: Returns what is missing while no worker has started, for a line every 15 s.
        abandon: Ends the attempt; called once if the user asks to stop before a worker has started.
        remark: Returns a line about where workers run, "" for none; it is printed once.
    """

    def __init__(
        self,
        label: str,
        bulletin: Any,
        stopped: Callable[[], bool],
        missing: Callable[[], str],
        abandon: Callable[[], None],
        remark: Callable[[Mapping[int, Place]], str] = lambda places: "",
    ) -> None:
        self.label = label
        self.bulletin = bulletin
        self.stopped = stopped
        self.missing = missing
        self.abandon = abandon
        self.remark = remark
        self.remarked = False
        self.reports = Reports()
        self.line: ProgressLine | None = None
        self.began = time.monotonic()
        self.reported = 0.0  # seconds after `began` of the last line about missing workers
        self.abandoned = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watch]:
        """Watch in a thread while the body runs."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.5):
                self._read()
                self._wait()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()
            self._read()
            if self.line is not None:
                self.line.close()

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

    def _wait(self) -> None:
        """Say what is missing while no worker has started, and abandon the attempt if the user asks to stop."""
        if self.reports.places:
            return
        waited = time.monotonic() - self.began
        if waited - self.reported >= SAY_EVERY:
            self.reported = waited
            with contextlib.suppress(Exception):  # the attempt itself reports a cluster that does not answer
                print(f"{self.label}: workers are starting ({waited:.0f} s): {self.missing()}", flush=True)
        if self.stopped() and not self.abandoned:
            self.abandoned = True
            self.abandon()
