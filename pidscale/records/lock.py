"""An advisory lock of a folder, which one process holds at a time. Knows paths only."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Lock a folder while the body runs; the system releases the lock when the process ends, however it ends.

    Args:
        folder: The folder.

    Yields:
        Whether this process holds the lock, so that no other one does.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
