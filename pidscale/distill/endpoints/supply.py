"""When endpoints are made: within the step that needs them, or ahead of it. Knows no order of rows, no ranks and no students.

A supply learns in which order rows of endpoints will be asked for, and gives them in that order. What a row holds follows
from its counters alone, so every supply gives the same.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pidscale.distill.endpoints.endpoint import Endpoints

Make = Callable[[Tensor], Endpoints]


@dataclass
class Tally:
    """Endpoints that were made, and the seconds that this took, wherever it was.

    Attributes:
        made: Endpoints since the last `take`.
        busy: Seconds since the last `take`.
        spent: Seconds of making beside the steps, since the start.
        waited: Seconds that steps waited for it, since the start.
    """

    made: int = 0
    busy: float = 0.0
    spent: float = 0.0
    waited: float = 0.0

    @property
    def hidden(self) -> float:
        """Seconds of making that no step waited for."""
        return max(0.0, self.spent - self.waited)

    def add(self, made: int, busy: float) -> None:
        """Count some."""
        self.made += made
        self.busy += busy

    def take(self) -> tuple[int, float]:
        """Return both numbers, and start again from zero."""
        found = self.made, self.busy
        self.made = 0
        self.busy = 0.0
        return found


class Supply(Protocol):
    """Endpoints by their counters.

    Attributes:
        tally: What it made.
    """

    tally: Tally

    def start(self, wanted: Iterator[Tensor]) -> None:
        """Say what will be asked for from now on, in order."""

    def get(self, counters: Tensor) -> Endpoints:
        """Return the endpoints of the counters that `start` announced next; before `start`, of any."""

    def close(self) -> None:
        """Make no more."""


class Inline:
    """Made when they are asked for."""

    def __init__(self, make: Make) -> None:
        """Take what makes endpoints from their counters."""
        self.make = make
        self.tally = Tally()

    def start(self, wanted: Iterator[Tensor]) -> None:
        """Nothing to prepare."""

    def get(self, counters: Tensor) -> Endpoints:
        """Make them now."""
        began = time.perf_counter()
        endpoints = self.make(counters)
        self.tally.add(len(counters), time.perf_counter() - began)
        return endpoints

    def close(self) -> None:
        """Nothing runs."""


class Ahead(Inline):
    """Made by a thread of its own, `ahead` rows before they are needed at most; on a GPU on a stream of its own."""

    def __init__(self, make: Make, ahead: int, device: torch.device) -> None:
        """Make nothing as yet.

        Args:
            make: Makes endpoints from their counters.
            ahead: Rows that may be ready before they are needed.
            device: Where they are made.
        """
        super().__init__(make)
        self.device = device
        self.threads = torch.get_num_threads()
        self.ready: queue.Queue[Endpoints | Exception] = queue.Queue(maxsize=ahead)
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self, wanted: Iterator[Tensor]) -> None:
        """Begin with the first row at once."""
        self.thread = threading.Thread(target=self._run, args=(wanted,), daemon=True)
        self.thread.start()

    def _run(self, wanted: Iterator[Tensor]) -> None:
        try:
            torch.set_num_threads(self.threads)  # a new thread has its own number, and bits may follow from it
            stream = None
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # which a new thread has not
                stream = torch.cuda.Stream(self.device)
            for counters in wanted:
                began = time.perf_counter()
                with torch.cuda.stream(stream):
                    endpoints = super().get(counters)
                if stream is not None:
                    stream.synchronize()
                self.tally.spent += time.perf_counter() - began
                self._put(endpoints)
                if self.ended.is_set():
                    return
        except Exception as error:  # it belongs to the step that waits for the row
            self._put(error)

    def _put(self, item: Endpoints | Exception) -> None:
        while not self.ended.is_set():
            try:
                return self.ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def get(self, counters: Tensor) -> Endpoints:
        """Return the next row, waited for if it is not ready; an error of the thread is raised here."""
        if self.thread is None:
            return super().get(counters)
        began = time.perf_counter()
        item = self.ready.get()
        self.tally.waited += time.perf_counter() - began
        if isinstance(item, Exception):
            raise item
        if not torch.equal(item.counters, counters):
            raise RuntimeError(f"endpoints {item.counters.tolist()} came where {counters.tolist()} were asked for")
        for made in (item.fields_BCYX, item.checksums):
            if made.is_cuda:  # on another stream: its memory may not be used again before this one is done with it
                made.record_stream(torch.cuda.current_stream(self.device))
        return item

    def close(self) -> None:
        """Let the thread end."""
        self.ended.set()
        if self.thread is not None:
            self.thread.join()
