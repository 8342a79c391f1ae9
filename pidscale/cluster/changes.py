"""Changes of the cluster that a running attempt answers: hosts that are about to leave, and room for more workers.

Knows Ray only through the hosts of `room`; must not know models or equations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from pidscale.cluster.repeat import repeated
from pidscale.cluster.room import Need, hosts, leaving
from pidscale.run.reporting import Request

LOOK_EVERY = 3.0  # seconds
_LOOKS = 2  # looks in a row that must find room, because a host that joins and leaves is not worth a start


class Changes:
    """What the driver asks of the loop because the cluster changes.

    Args:
        workers: The number of workers of the attempt.
        larger: The needs of larger attempts, the largest first; without any, room is not looked for.
        places: Returns the names of the hosts of the workers that have started, one name a worker.
        say: Prints a line.
    """

    def __init__(
        self,
        workers: int,
        larger: Sequence[Need],
        places: Callable[[], Sequence[str]],
        say: Callable[[str], None],
    ) -> None:
        self.workers = workers
        self.larger = list(larger)
        self.places = places
        self.say = say
        self.asks = Request.NOTHING
        self.looks = 0  # in a row that found room

    @contextlib.contextmanager
    def watching(self) -> Iterator[Changes]:
        """Look every few seconds in a thread while the body runs."""

        def look() -> None:
            with contextlib.suppress(Exception):  # a head that does not answer; the attempt itself reports it
                self._look()

        with repeated(look, LOOK_EVERY):
            yield self

    def _look(self) -> None:
        """Ask for a stop if a host of a worker is about to leave, or for growth once there has been room for a while."""
        places = self.places()
        if len(places) < self.workers or self.asks is Request.STOP:
            return  # until all workers have started, what is free is not free
        gone = sorted(set(places) & leaving())
        if gone:
            self.asks = Request.STOP
            self.say(
                f"host {', '.join(gone)} is about to leave the cluster: the run goes on elsewhere from a checkpoint"
            )
            return
        more = self._room()
        self.looks = self.looks + 1 if more else 0
        if self.looks >= _LOOKS and self.asks is Request.NOTHING:
            self.asks = Request.GROW
            self.say(f"the cluster has room for {more} workers: {self.workers} become {more} at the next checkpoint")

    def _room(self) -> int:
        """Return the largest number of workers that there is room for beside those of the attempt; 0 if for no more."""
        there = hosts() if self.larger else []
        for need in self.larger:
            if sum(need.fits(host.free) for host in there) >= need.parts - self.workers:
                return need.parts
        return 0
