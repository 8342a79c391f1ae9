"""Supplies of endpoints, made within the step that needs them or ahead of it. Knows no order of rows, ranks or students.

A supply receives the request order of the rows in advance, and returns the rows in this order. The contents of a row depend
only on its counters, so that all supplies return the same endpoints.
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
    """Counts of endpoints and of the time spent on making them, in any process.

    Attributes:
        made: Number of endpoints made since the last `take`.
        busy: Seconds spent on making endpoints since the last `take`.
        spent: Seconds spent on making endpoints in parallel with the steps, since the start.
        waited: Seconds that steps waited for these endpoints, since the start.
    """

    made: int = 0
    busy: float = 0.0
    spent: float = 0.0
    waited: float = 0.0

    @property
    def hidden(self) -> float:
        """Seconds spent on making endpoints that did not delay a step."""
        return max(0.0, self.spent - self.waited)

    def add(self, made: int, busy: float) -> None:
        """Add a number of endpoints and the seconds spent on them."""
        self.made += made
        self.busy += busy

    def take(self) -> tuple[int, float]:
        """Return `made` and `busy`, and reset them to zero."""
        found = self.made, self.busy
        self.made = 0
        self.busy = 0.0
        return found


class Supply(Protocol):
    """Interface of a supply of endpoints.

    Attributes:
        tally: Counts of the endpoints that the supply made.
    """

    tally: Tally

    def start(self, wanted: Iterator[Tensor]) -> None:
        """Announce the counters of the rows that will be requested, in this order."""

    def get(self, counters: Tensor) -> Endpoints:
        """Return the endpoints of the next announced counters; before `start`, of any counters."""

    def close(self) -> None:
        """Stop making endpoints."""


class Inline:
    """A supply that makes endpoints when they are requested."""

    def __init__(self, make: Make) -> None:
        """Create the supply from a function that makes the endpoints of given counters."""
        self.make = make
        self.tally = Tally()

    def start(self, wanted: Iterator[Tensor]) -> None:
        """Do nothing: no preparation is needed."""

    def get(self, counters: Tensor) -> Endpoints:
        """Make the endpoints now and return them."""
        began = time.perf_counter()
        endpoints = self.make(counters)
        self.tally.add(len(counters), time.perf_counter() - began)
        return endpoints

    def close(self) -> None:
        """Do nothing: nothing runs in the background."""


class Ahead(Inline):
    """A supply that makes up to `ahead` rows in advance in a background thread; on a GPU, in a separate CUDA stream."""

    def __init__(self, make: Make, ahead: int, device: torch.device) -> None:
        """Create the supply; the thread starts with `start`.

        Args:
            make: Returns the endpoints of given counters.
            ahead: Maximum number of rows that are ready in advance.
            device: Device on which endpoints are made.
        """
        super().__init__(make)
        self.device = device
        self.threads = torch.get_num_threads()
        self.ready: queue.Queue[Endpoints | Exception] = queue.Queue(maxsize=ahead)
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self, wanted: Iterator[Tensor]) -> None:
        """Start the thread, which begins with the first row immediately."""
        self.thread = threading.Thread(target=self._run, args=(wanted,), daemon=True)
        self.thread.start()

    def _run(self, wanted: Iterator[Tensor]) -> None:
        try:
            torch.set_num_threads(self.threads)  # a per-thread setting, on which bits may depend
            stream = None
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # a per-thread setting
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
        except Exception as error:  # raised in the step that waits for the row
            self._put(error)

    def _put(self, item: Endpoints | Exception) -> None:
        while not self.ended.is_set():
            try:
                return self.ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def get(self, counters: Tensor) -> Endpoints:
        """Return the next row, waiting until it is ready. Raises any error of the thread."""
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
            if made.is_cuda:  # made on another stream: keeps its memory until this stream is done
                made.record_stream(torch.cuda.current_stream(self.device))
        return item

    def close(self) -> None:
        """Stop the thread and wait for it to end."""
        self.ended.set()
        if self.thread is not None:
            self.thread.join()
