"""A thread that does something again and again while a body runs. Knows no Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(act: Callable[[], object], every: float) -> Iterator[None]:
    """Call a function every few seconds in a thread while the body runs; the last call has ended when the body is left.

    Args:
        act: The function. An error that it raises ends the thread.
        every: The seconds between two calls; the first one comes after as many.

    Yields:
        Nothing.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every):
            act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
