"""What workers have to say to the driver: an actor on the driver's own host, and the driver's thread that reads it.

The actor sits beside the driver, so that a lost host never takes it along. Words of workers of an earlier attempt, which may
outlive it on a host that was cut off, are not heard. Knows Ray; must not know models or equations.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pidscale.cluster.room import SAY_EVERY
from pidscale.meter import ProgressLine


class Place(NamedTuple):
    """Where a worker runs: the name of its host, and the address by which Ray knows that host."""

    host: str
    address: str


@dataclass
class Word:
    """What is known of the workers of the present attempt. places: by rank, of those that began. latest: newest progress."""

    attempt: int = 0
    latest: tuple[int, int, str] | None = None
    places: dict[int, Place] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


class Bulletin:
    """The actor's side: workers write, the driver reads."""

    def __init__(self) -> None:
        self.word = Word()

    def begin(self, attempt: int) -> None:
        """From now on, hear the workers of this attempt alone."""
        self.word = Word(attempt, texts=self.word.texts)

    def started(self, attempt: int, rank: int, place: Place) -> None:
        """A worker began."""
        if attempt == self.word.attempt:
            self.word.places[rank] = place

    def post(self, attempt: int, done: int, total: int, note: str) -> None:
        """The first worker's progress."""
        if attempt == self.word.attempt:
            self.word.latest = (done, total, note)

    def say(self, text: str) -> None:
        """A line for the terminal."""
        self.word.texts.append(text)

    def read(self) -> Word:
        """What is known; lines are given once."""
        word = self.word
        self.word = Word(word.attempt, word.latest, word.places)
        return word


def open_bulletin() -> Any:
    """A bulletin on this driver's host."""
    here = NodeAffinitySchedulingStrategy(str(ray.get_runtime_context().get_node_id()), soft=False)
    return ray.remote(num_cpus=0)(Bulletin).options(scheduling_strategy=here).remote()


class Watch:
    """The driver's side during one attempt: shows the live line, keeps what it read, and ends what waits for nothing.

    Args:
        label: Of the live line.
        bulletin: The actor.
        stopped: Whether the user asked to end.
        missing: What is missing while no worker has begun, for a line every 15 s.
        abandon: Ends the attempt; called once when the user asked to end and no worker is there that could be asked.
    """

    def __init__(
        self,
        label: str,
        bulletin: Any,
        stopped: Callable[[], bool],
        missing: Callable[[], str],
        abandon: Callable[[], None],
    ) -> None:
        self.label, self.bulletin, self.stopped, self.missing, self.abandon = label, bulletin, stopped, missing, abandon
        self.word = Word()
        self.line: ProgressLine | None = None
        self.began, self.said, self.abandoned = time.monotonic(), 0.0, False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watch]:
        """Watch until the body ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.5):
                self._look()
                self._wait()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()
            self._look()
            if self.line is not None:
                self.line.close()

    def _look(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            self.word = ray.get(self.bulletin.read.remote(), timeout=10)
            for text in self.word.texts:
                print(text, flush=True)
            if self.word.latest is not None:
                done, total, note = self.word.latest
                self.line = self.line or ProgressLine(self.label, total)
                self.line.show(done, note)

    def _wait(self) -> None:
        """What to say and do while no worker has begun."""
        if self.word.places:
            return
        waited = time.monotonic() - self.began
        if waited - self.said >= SAY_EVERY:
            self.said = waited
            with contextlib.suppress(Exception):  # a cluster that cannot be asked is told of by the attempt itself
                print(f"{self.label}: workers are starting ({waited:.0f} s): {self.missing()}", flush=True)
        if self.stopped() and not self.abandoned:
            self.abandoned = True
            self.abandon()
