"""Growth of a run: while an attempt has fewer workers than it may have, the driver looks for room for more.

Knows Ray only through the hosts of `room`; must not know models or equations.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pidscale.cluster.room import Need, hosts
from pidscale.run.reporting import GROW_FILE

LOOK_EVERY = 3.0  # seconds
_LOOKS = 2  # looks in a row that must find room, because a host that joins and leaves is not worth a start


class Growth:
    """Whether there is room for more workers, and the request to the loop to stop at its next checkpoint.

    Args:
        folder: The folder of the run, in which the request is a file.
        workers: The number of workers of the attempt.
        larger: The needs of larger attempts, the largest first; without any nothing is watched.
        started: Whether all workers of the attempt have started, so that what is free is free.
        say: Prints a line.
    """

    def __init__(
        self,
        folder: Path,
        workers: int,
        larger: Sequence[Need],
        started: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self.file = folder / GROW_FILE
        self.workers = workers
        self.larger = list(larger)
        self.started = started
        self.say = say
        self.asked = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[Growth]:
        """Look for room in a thread while the body runs."""
        self.file.unlink(missing_ok=True)
        ended = threading.Event()
        thread = threading.Thread(target=self._look, args=(ended,), daemon=True)
        if self.larger:
            thread.start()
        try:
            yield self
        finally:
            ended.set()
            if self.larger:
                thread.join()
            self.file.unlink(missing_ok=True)

    def _look(self, ended: threading.Event) -> None:
        """Look every few seconds, and ask the loop to stop once there has been room for a while."""
        found = 0
        while not ended.wait(LOOK_EVERY):
            more = 0
            with contextlib.suppress(Exception):  # a head that does not answer; the attempt itself reports it
                more = self._room() if self.started() else 0
            found = found + 1 if more else 0
            if found == _LOOKS:
                self.say(
                    f"the cluster has room for {more} workers: {self.workers} become {more} at the next checkpoint"
                )
                self.asked = True
                self.file.touch()
                return

    def _room(self) -> int:
        """Return the largest number of workers that there is room for beside those of the attempt; 0 if for no more."""
        there = hosts()
        for need in self.larger:
            if sum(need.fits(host.free) for host in there) >= need.parts - self.workers:
                return need.parts
        return 0
