"""Free space on the disk that a run writes to: checked before a write, and one line if a write fails for lack of it.

Libraries report a full disk in different ways: as an OSError with a number, or as a SafetensorError with the number in its
text. Knows no ranks.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from pidscale.config import UserError
from pidscale.plain import size_texts

_KINDS = {
    errno.ENOSPC: "no room on the disk",
    errno.EDQUOT: "no room within the disk quota",
    errno.EROFS: "the file system is read-only",
}
_REMEDY = {errno.EROFS: "mount it for writing"}


def disk_errno(error: BaseException) -> int | None:
    """Return the error number if an error, or what it was raised from, says that the disk takes no more; else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _KINDS:
            return cause.errno
        if isinstance(cause, SafetensorError):
            number = re.search(r"os error (\d+)", str(cause))
            if number and int(number[1]) in _KINDS:
                return int(number[1])
        cause = cause.__cause__ or cause.__context__
    return None


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that are free below a folder, which need not exist yet; None if the system does not say."""
    with suppress(OSError):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free
    return None


def _line(folder: Path, what: str, needed: int | None, kind: int, after: str) -> str:
    """Return the message: folder, bytes needed and free as far as they are known, and what happens afterwards."""
    free = free_bytes(folder) if kind != errno.EROFS else None
    need, room = size_texts(needed or 0, free or 0)
    sizes = [f"{need} needed"] * (needed is not None) + [f"{room} free"] * (free is not None)
    in_brackets = f" ({', '.join(sizes)})" if sizes else ""
    return f"{folder}: {_KINDS[kind]} for {what}{in_brackets}; {_REMEDY.get(kind, 'make room')}, {after}"


def lack_of_room(folder: Path, what: str, needed: int, after: str) -> str | None:
    """Return a message if too few bytes are free for a write, else None.

    Args:
        folder: The folder to write to.
        what: What is to be written, as the message names it.
        needed: The bytes of it.
        after: What happens once there is room, such as `the same command goes on from step 100`.

    Returns:
        The message, one line.
    """
    free = free_bytes(folder)
    return _line(folder, what, needed, errno.ENOSPC, after) if free is not None and free < needed else None


@contextmanager
def in_one_line(folder: Path, what: str, needed: int | None, after: str) -> Iterator[None]:
    """Turn the error of a full or read-only disk into one line while the body writes to a folder.

    Args:
        folder: The folder that the body writes to.
        what: What it writes, as the message names it.
        needed: The bytes of it, about, if they are known.
        after: What happens once there is room.

    Yields:
        Nothing.

    Raises:
        UserError: The disk takes no more.
        Exception: Any other error of the body, unchanged.
    """
    try:
        yield
    except Exception as error:
        kind = disk_errno(error)
        if kind is None:
            raise
        raise UserError(_line(folder, what, needed, kind, after)) from error
