"""An advisory lock of a folder that one process holds at a time, also between hosts that share the folder. Knows paths only.

The lock is a regular file in the folder, because network file systems lock files between hosts, but not folders. Some of them
lock files on each host alone. For these the file also names its owner, whose process writes a new count to it every few
seconds; a process of another host takes the file only if the count stands still. Clocks are never compared.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pidscale.config import UserError

LOCK = ".lock"
BEAT = 5.0  # seconds between two counts of an owner
_LONGEST = 4096  # bytes of a record that are read
PATIENCE = 20.0  # seconds for which the count of an owner on another host must stand still


class Ownership(Protocol):
    """What the holder of a folder gives to those who write there in its name."""

    def check(self) -> None:
        """Raise UserError if another process has taken the folder, so that this one must not write there any more."""
        ...

    def holds(self) -> bool:
        """Return whether the folder still names this owner."""
        ...


@dataclass(frozen=True)
class Owner:
    """The process that holds a folder, as the lock file names it.

    Attributes:
        file: The lock file; None if the folder is read-only, where no process can write.
        token: A word that no other owner has.
    """

    file: Path | None
    token: str

    def check(self) -> None:
        """Raise UserError if another host has taken the folder, or if it is gone, so that this one must not write there."""
        if self.file is not None and (record := _record(self.file)).get("token") != self.token:
            raise UserError(lost(str(self.file.parent), record))

    def holds(self) -> bool:
        """Return whether the lock file still names this owner; False once another host has taken the folder."""
        return self.file is None or _record(self.file).get("token") == self.token


def lost(place: str, record: Mapping[str, Any]) -> str:
    """Return the error of an owner that holds a folder no more.

    Args:
        place: The path or address of the folder, for the message.
        record: What its lock says now; empty if there is none.

    Returns:
        One line.
    """
    if not record:
        return (
            f"{place}: its {LOCK} is gone: somebody removed it, or the storage is not there; nothing more is written here, "
            "and once it is back, the same command goes on from its last checkpoint"
        )
    by = whose(record) or "another process"
    return f"{place}: {by} has taken it over while this one did not answer; nothing more is written here"


def holder(folder: Path) -> str:
    """Return the process that holds a folder, such as `process 7 on host a`; an empty string if it is not known."""
    with suppress(OSError):
        return whose(_record(folder / LOCK))
    return ""


def at_work(folder: Path) -> str:
    """Return the process that holds a folder, as `holder` does, but none of this host that has ended."""
    with suppress(OSError):
        record = _record(folder / LOCK)
        return "" if lives_here(record) is False else whose(record)
    return ""


def whose(record: Mapping[str, Any]) -> str:
    """Return the process that a record names, such as `process 7 on host a`; an empty string if it names none."""
    host = record.get("host")
    if isinstance(host, str) and host.split() and isinstance(record.get("process"), int):
        return f"process {record['process']} on host {host.split()[0]}"
    return ""


def lives_here(record: Mapping[str, Any]) -> bool | None:
    """Return whether the process that a record names is alive; None if it is not one of this host."""
    process = record.get("process")
    if record.get("host") != _this_host() or not isinstance(process, int):
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return True


def record_of_this_process(token: str, count: int) -> dict[str, Any]:
    """Return the record of this process as an owner; the length of its JSON is the same for every count."""
    return {"host": _this_host(), "process": os.getpid(), "token": token, "count": f"{count:012d}"}


@contextmanager
def held(folder: Path) -> Iterator[Owner | None]:
    """Lock a folder while the body runs; the lock of a process that was killed can be taken, however it ended.

    That takes `PATIENCE` seconds if the process was on another host.

    Args:
        folder: The folder.

    Yields:
        The owner that this process has become; None if another process holds the folder.

    Raises:
        OSError: The file system takes no lock file, for another reason than that it is read-only.
    """
    try:
        descriptor = _locked(folder / LOCK)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        yield Owner(None, "")
        return
    if descriptor is None:
        yield None
        return
    file = folder / LOCK
    owner = Owner(file, secrets.token_hex(8))
    ended = threading.Event()
    given = (owner.token, lambda: _record(file), lambda count: _write(descriptor, owner.token, count), ended)
    thread = threading.Thread(target=beat, args=given, daemon=True)
    try:
        if _lives(folder / LOCK):
            yield None
            return
        _write(descriptor, owner.token, 0)
        thread.start()
        yield owner
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()
            with suppress(OSError):
                if owner.holds():
                    (folder / LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def _locked(file: Path) -> int | None:
    """Open and lock a file, which is created if it is missing; return its descriptor, None if another process has it."""
    while True:
        descriptor = _opened(file, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    return descriptor
            os.close(descriptor)  # its owner removed it just before we locked it
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise


def _lives(file: Path) -> bool:
    """Return whether an owner on another host still writes to a file that is locked on this host alone."""
    first = _record(file)
    if not first.get("host") or not isinstance(first["host"], str) or first["host"] == _this_host():
        return False  # on one host a lock ends with its process
    return counts(first, lambda: _record(file), file.parent)


def counts(first: Mapping[str, Any], read: Callable[[], Mapping[str, Any]], where: Path | str) -> bool:
    """Return whether the owner of a lock writes a new record within `PATIENCE` seconds, and say that this is looked for.

    Args:
        first: The record that was read.
        read: Reads the record again.
        where: The place that is locked, for the line.

    Returns:
        Whether it does.
    """
    print(
        f"{where}: looking for {PATIENCE:.0f} s whether {whose(first) or 'another process'} still holds it", flush=True
    )
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(min(1.0, BEAT / 5))
        now = read()
        if now and now != first:
            return True
    return False


def beat(
    token: str, read: Callable[[], Mapping[str, Any]], write: Callable[[int], None], ended: threading.Event
) -> None:
    """Write a new count every few seconds until an event is set or another owner has the lock.

    Args:
        token: The word of this owner.
        read: Returns what the lock says; empty while there is none, as on storage that is away.
        write: Writes a count.
        ended: The event.
    """
    count = 0
    while not ended.wait(BEAT):
        count += 1
        with suppress(OSError, UserError):  # a file system or a store that is away for a while
            record = read()
            if record.get("token") == token:
                write(count)
            elif record:
                return


def _write(descriptor: int, token: str, count: int) -> None:
    """Write a record of this process. Its length never changes, so that a reader sees one record or the other."""
    record = json.dumps(record_of_this_process(token, count)).encode()
    os.pwrite(descriptor, record, 0)
    os.ftruncate(descriptor, len(record))
    os.fsync(descriptor)


def _record(file: Path) -> dict[str, Any]:
    """Return the record of a lock file; empty if there is none. Storage that does not answer raises an OSError."""
    with suppress(FileNotFoundError, ValueError, RecursionError):
        descriptor = _opened(file, os.O_RDONLY)
        try:
            found = json.loads(os.read(descriptor, _LONGEST))
        finally:
            os.close(descriptor)
        if isinstance(found, dict):
            return found
    return {}


def _opened(file: Path, flags: int) -> int:
    """Open a lock file; UserError if it is a link, a folder or anything else than a regular file, which no lock ever is."""
    wrong = UserError(f"{file}: not a lock file of pidscale; remove it")
    try:
        descriptor = os.open(file, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise wrong from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise wrong
    return descriptor


def _this_host() -> str:
    """Return a name of this host that no other one has, and that changes when it is started again."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return socket.gethostname()
