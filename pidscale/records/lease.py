"""A lock of a folder of an object store, which one process holds at a time. Knows names and bytes only.

Object stores lock nothing. The lock is an object that names its owner, who writes a new count to it every few seconds (as
lock.py does on storage that locks files on each host alone); another process takes it if the count stands still. Two that
write their names at once read them again after some seconds, and the one whose name is gone gives way. Clocks are never
compared.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pidscale.config import UserError
from pidscale.records.lock import LOCK, beat, counts, lives_here, lost, record_of_this_process, whose
from pidscale.records.stores.objects import Objects

_SETTLED = 2.0  # seconds after which a name that was written is read again


@dataclass(frozen=True)
class Tenant:
    """The process that holds a folder of a store, as its lock object names it.

    Attributes:
        address: The address of the folder.
        token: A word that no other owner has.
        patience: Seconds for which the store may be unavailable.
    """

    address: str
    token: str
    patience: float

    def check(self) -> None:
        """Raise UserError if another process has taken the folder, so that this one must not write there any more."""
        record = _record(self._objects())
        if record.get("token") != self.token:
            raise UserError(lost(self.address, record))

    def holds(self) -> bool:
        """Return whether the lock object still names this owner."""
        return _record(self._objects()).get("token") == self.token

    def _objects(self) -> Objects:
        return Objects(self.address, self.patience, "run.folder")


def tenant_of(objects: Objects) -> str:
    """Return the process that holds a folder, such as `process 7 on host a`; an empty string if it is not known."""
    return whose(_record(objects))


@contextmanager
def leased(objects: Objects) -> Iterator[Tenant | None]:
    """Hold a folder of a store while the body runs; that of a process that was killed can be taken after `PATIENCE` seconds.

    A store that cannot be written to raises a UserError.

    Args:
        objects: The folder.

    Yields:
        The owner that this process has become; None if another process holds the folder.
    """
    if _lives(objects):
        yield None
        return
    owner = Tenant(objects.address, secrets.token_hex(8), objects.patience)
    _write(objects, owner.token, 0)
    time.sleep(_SETTLED)
    if not owner.holds():
        yield None
        return
    ended = threading.Event()
    given = (owner.token, lambda: _record(objects), lambda count: _write(objects, owner.token, count), ended)
    thread = threading.Thread(target=beat, args=given, daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        ended.set()
        thread.join()
        with suppress(UserError):
            if owner.holds():
                objects.remove([LOCK])


def _lives(objects: Objects) -> bool:
    """Return whether a process holds the folder and still writes to its lock."""
    first = _record(objects)
    if not first or lives_here(first) is False:
        return False
    return counts(first, lambda: _record(objects), objects.address)


def _write(objects: Objects, token: str, count: int) -> None:
    objects.write(LOCK, json.dumps(record_of_this_process(token, count)).encode())


def _record(objects: Objects) -> dict[str, Any]:
    """Return the record of a lock object; empty if there is none."""
    with suppress(ValueError, RecursionError):
        found = json.loads(objects.content(LOCK) or b"{}")
        if isinstance(found, dict):
            return found
    return {}
